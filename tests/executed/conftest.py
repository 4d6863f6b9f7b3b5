"""A network in Q/DQ form whose middle stays float, small enough to be made without an export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgedet.bundle import MANIFEST, Artifact, Bundle, FileEntry, Manifest
from edgedet.embedded import RT_INFO_PATH, SPEC_KEY
from edgedet.files import write_atomically
from edgedet.spec import DetectorSpec, InputSpec, OutputSpec, SsdDecoder, SsdPriors

CHANNELS = 8
SIDE = 16


@pytest.fixture(scope="session")
def spec() -> DetectorSpec:
    """Two outputs of one cell for each pixel."""
    priors = SsdPriors(feature_maps_hw=((SIDE, SIDE),), scales=(0.2, 0.4), aspect_ratios=((),))
    return DetectorSpec(
        name="quantized",
        input=InputSpec(size_hw=(SIDE, SIDE)),
        outputs=(
            OutputSpec(name="box_offsets", shape=(1, priors.count, 4), role="box_offsets"),
            OutputSpec(name="class_logits", shape=(1, priors.count, 4), role="class_logits"),
        ),
        decoder=SsdDecoder(priors=priors),
        labels=("one", "two", "three"),
        precision="int8",
    )


@pytest.fixture(scope="session")
def quantized(tmp_path_factory: pytest.TempPathFactory, spec: DetectorSpec) -> Callable[[bool], Bundle]:
    """Makes a bundle for ONNX Runtime and OpenVINO, with or without a convolution in float in its middle."""
    pytest.importorskip("onnx")
    made: dict[bool, Bundle] = {}

    def make(island: bool) -> Bundle:
        if island not in made:
            made[island] = _bundle(tmp_path_factory.mktemp("executed"), spec, island)
        return made[island]

    return make


def _bundle(root: Path, spec: DetectorSpec, island: bool) -> Bundle:
    import onnx
    import openvino

    (root / "int8").mkdir()
    model = _network(spec, island)
    model.metadata_props.append(onnx.StringStringEntryProto(key=SPEC_KEY, value=spec.to_json()))
    onnx_path, xml_path = root / "int8" / "model.onnx", root / "int8" / "model.xml"
    onnx_path.write_bytes(model.SerializeToString())
    converted = openvino.convert_model(onnx_path)
    converted.set_rt_info(spec.to_json(), list(RT_INFO_PATH))
    openvino.save_model(converted, xml_path, compress_to_fp16=False)
    artifacts = tuple(
        Artifact(
            target=target,
            precision="int8",
            runtime=runtime,
            files=tuple(FileEntry.of(root, path) for path in paths),
        )
        for target, runtime, paths in (
            ("onnx", "ort", (onnx_path,)),
            ("openvino", "openvino", (xml_path, xml_path.with_suffix(".bin"))),
        )
    )
    manifest = Manifest(spec=spec.model_copy(update={"precision": "fp32"}), artifacts=artifacts)
    write_atomically(root / MANIFEST, manifest.model_dump_json())
    return Bundle(root, manifest)


class _Graph:
    """Nodes and constants of a graph that grows from its input on."""

    def __init__(self) -> None:
        from onnx import numpy_helper

        self.nodes: list[object] = []
        self.constants = {"scale": np.float32(0.05), "zero": np.uint8(128)}
        self.constants["none"] = np.zeros(CHANNELS, np.int8)
        self._random = np.random.default_rng(0)
        self._to_tensor = numpy_helper.from_array

    def add(self, kind: str, *inputs: str, name: str, **attributes: object) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"node_{name}", **attributes))
        return name

    def round(self, tensor: str) -> str:
        """Quantize and dequantize a tensor."""
        quantized = self.add("QuantizeLinear", tensor, "scale", "zero", name=f"{tensor}_q")
        return self.add("DequantizeLinear", quantized, "scale", "zero", name=f"{tensor}_dq")

    def convolve(self, tensor: str, name: str, inputs: int = CHANNELS, *, integer: bool = True) -> str:
        weights = self._random.integers(-127, 127, (CHANNELS, inputs, 3, 3)).astype(np.int8)
        if integer:
            self.constants[f"{name}_w"] = weights
            self.constants[f"{name}_s"] = np.full(CHANNELS, 0.001, np.float32)
            kernel = self.add(
                "DequantizeLinear", f"{name}_w", f"{name}_s", "none", name=f"{name}_wdq", axis=0
            )
        else:
            kernel = f"{name}_w"
            self.constants[kernel] = weights.astype(np.float32) * np.float32(0.001)
        return self.add("Conv", tensor, kernel, name=name, pads=[1, 1, 1, 1])

    def initializers(self) -> list[object]:
        return [self._to_tensor(np.asarray(value), name) for name, value in self.constants.items()]


def _network(spec: DetectorSpec, island: bool):
    """A stem in integers, two convolutions in integers or in float, and predictors in integers."""
    from onnx import TensorProto, helper

    graph = _Graph()
    tensor = graph.round(graph.convolve(graph.round("images"), "stem", 3))
    first = graph.convolve(tensor, "first", integer=not island)
    between = graph.add("Relu", first, name="relu") if island else graph.round(first)
    tensor = graph.round(graph.convolve(between, "second", integer=not island))
    graph.constants["shape"] = np.array([1, -1, 4], np.int64)
    for output in spec.outputs:
        predicted = graph.round(graph.convolve(tensor, f"predict_{output.name}"))
        graph.add("Reshape", predicted, "shape", name=output.name)
    made = helper.make_graph(
        graph.nodes,
        "quantized",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, spec.input.tensor.shape)],
        [helper.make_tensor_value_info(o.name, TensorProto.FLOAT, o.shape) for o in spec.outputs],
        graph.initializers(),
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
