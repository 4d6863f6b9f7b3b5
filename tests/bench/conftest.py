"""A small network in an ONNX file with its spec, for measuring a real runtime without an export."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from edgedet.bundle import MANIFEST, Artifact, Bundle, FileEntry, Manifest
from edgedet.embedded import SPEC_KEY
from edgedet.files import write_atomically
from edgedet.spec import DetectorSpec, InputSpec, OutputSpec, Precision, SsdDecoder, SsdPriors

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with the same ONNX network as fp32 and as int8; it sees a class-0 object in every cell."""
    return _made(tmp_path_factory.mktemp("benchmark") / "bundle", (1,))


@pytest.fixture(scope="session")
def batched(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same for one image, two and sixteen at once."""
    return _made(tmp_path_factory.mktemp("batched") / "bundle", (1, 2, 16))


def _made(root: Path, batches: tuple[int, ...]) -> Bundle:
    pytest.importorskip("onnxruntime")
    priors = SsdPriors(feature_maps_hw=((4, 4),), scales=(0.2, 0.4), aspect_ratios=((2.0,),))
    spec = DetectorSpec(
        name="tiny",
        input=InputSpec(size_hw=(32, 32)),
        outputs=(
            OutputSpec(name="box_offsets", shape=(1, priors.count, 4), role="box_offsets"),
            OutputSpec(name="class_logits", shape=(1, priors.count, 3), role="class_logits"),
        ),
        decoder=SsdDecoder(priors=priors),
        labels=("one", "two"),
    )
    artifacts = []
    for precision, batch in itertools.product(("fp32", "int8"), batches):
        path = root / precision / (f"batch{batch}" if batch > 1 else "") / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_network(path, spec.with_batch(batch), precision)
        files = (FileEntry.of(root, path),)
        artifacts.append(
            Artifact(target="onnx", precision=precision, batch=batch, runtime="ort", files=files)
        )
    manifest = Manifest(spec=spec, artifacts=tuple(artifacts))
    write_atomically(root / MANIFEST, manifest.model_dump_json())
    return Bundle(root, manifest)


def write_network(path: Path, spec: DetectorSpec, precision: Precision) -> None:
    """The mean of each image, times zero, plus constants: offsets 0 and logits of class 0."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    outputs = {output.name: output for output in spec.outputs}
    logits = np.zeros(outputs["class_logits"].shape, np.float32)
    logits[..., 1] = 5
    constants = {
        "zero": np.zeros((1, 1, 1), np.float32),
        "offsets": np.zeros(outputs["box_offsets"].shape, np.float32),
        "logits": logits,
        "shape": np.array([-1, 1, 1], np.int64),
        "axes": np.array([1, 2, 3], np.int64),
    }
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=1),
        helper.make_node("Reshape", ["mean", "shape"], ["scalar"]),
        helper.make_node("Mul", ["scalar", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "offsets"], ["box_offsets"]),
        helper.make_node("Add", ["nothing", "logits"], ["class_logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, spec.input.tensor.shape)],
        [helper.make_tensor_value_info(o.name, TensorProto.FLOAT, o.shape) for o in spec.outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    inside = spec.model_copy(update={"precision": precision})
    model.metadata_props.append(onnx.StringStringEntryProto(key=SPEC_KEY, value=inside.to_json()))
    path.write_bytes(model.SerializeToString())
