"""What TFLite alone makes: int8 weights with int16 activations, and with activations rounded as they come."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgedet import registry
from edgedet.bundle import Bundle
from edgedet.data import open_dataset
from edgedet.errors import VendorError
from edgedet.parity import run_parity
from edgedet.pipeline import load
from edgedet.preprocess import preprocess

CONVOLUTIONS = {"CONV_2D", "DEPTHWISE_CONV_2D"}


class Opened:
    """Operators of an artifact and the types of what they read."""

    def __init__(self, bundle: Bundle, precision: str) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(str(bundle.path_of(bundle.artifact("tflite", precision))))
        self.operators: list[dict[str, Any]] = self.interpreter._get_ops_details()
        self.details = {detail["index"]: detail for detail in self.interpreter.get_tensor_details()}

    def types(self, names: set[str], position: int) -> Counter[str]:
        """Types of one input of every operator of some names."""
        read = [o["inputs"][position] for o in self.operators if o["op_name"] in names]
        return Counter(np.dtype(self.details[index]["dtype"]).name for index in read)

    def count(self, name: str) -> int:
        return sum(operator["op_name"] == name for operator in self.operators)


@pytest.mark.parametrize("precision", ["int8-a16", "int8-dynamic"])
def test_inputs_and_outputs_are_those_of_every_other_artifact(tflite_bundle: Bundle, precision: str) -> None:
    artifact = tflite_bundle.artifact("tflite", precision)
    with registry.RUNTIMES.load("tflite")(tflite_bundle.path_of(artifact)) as runtime:
        spec = runtime.spec
        assert runtime.inputs == (spec.input.tensor,)
        assert [(o.name, o.shape, o.dtype) for o in runtime.outputs] == [
            (o.name, o.shape, "float32") for o in spec.outputs
        ]
        assert spec.precision == precision


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8-a16", "int8-dynamic"])
def test_the_image_is_channels_last_and_nothing_transposes_it(
    tflite_bundle: Bundle, full_bundle: Bundle, precision: str
) -> None:
    bundle = tflite_bundle if precision in {"int8-a16", "int8-dynamic"} else full_bundle
    opened = Opened(bundle, precision)
    (image,) = opened.interpreter.get_input_details()
    assert image["shape"].tolist() == [1, *bundle.spec.input.size_hw, 3]
    pixels = int(np.prod(image["shape"]))
    transposed = [o for o in opened.operators if o["op_name"] == "TRANSPOSE"]
    assert all(np.prod(opened.details[o["inputs"][0]]["shape"]) != pixels for o in transposed)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_operators_are_named_after_the_layers_of_the_detector(full_bundle: Bundle, precision: str) -> None:
    artifact = full_bundle.artifact("tflite", precision)
    with registry.RUNTIMES.load("tflite")(full_bundle.path_of(artifact), threads=1) as opened:
        names = [one.name for one in opened.executed(runs=1).operators if one.type in CONVOLUTIONS]
    assert sum("conv_pw" in name for name in names) > 10, names


def test_sixteen_bit_activations_meet_int8_weights_and_int64_biases(tflite_bundle: Bundle) -> None:
    opened = Opened(tflite_bundle, "int8-a16")
    assert set(opened.types(CONVOLUTIONS, 0)) == {"int16"}
    assert set(opened.types(CONVOLUTIONS, 1)) == {"int8"}
    assert set(opened.types(CONVOLUTIONS, 2)) == {"int64"}
    assert set(opened.types({"ADD", "CONCATENATION"}, 0)) == {"int16"}
    assert (opened.count("QUANTIZE"), opened.count("DEQUANTIZE")) == (1, 2)  # the boundary and nothing inside
    zero_points = {
        int(point)
        for detail in opened.details.values()
        for point in detail["quantization_parameters"]["zero_points"]
    }
    assert zero_points == {0}


def test_sixteen_bits_follow_their_fake_quantized_reference_and_come_nearer_to_float_than_eight(
    tflite_bundle: Bundle, full_bundle: Bundle
) -> None:
    image = next(iter(open_dataset("builtin", split="test"))).image_bgr
    feeds = {"images": preprocess(image, full_bundle.spec.input)[0]}
    outputs = {}
    for bundle, runtime, precision in (
        (full_bundle, "eager", "fp32"),
        (full_bundle, "tflite", "int8"),
        (tflite_bundle, "tflite", "int8-a16"),
    ):
        path = bundle.path_of(bundle.artifact(runtime, precision))
        with registry.RUNTIMES.load(runtime)(path, threads=1) as opened:
            outputs[precision] = opened.run(feeds)
    reference = registry.REFERENCES.load("int8")(tflite_bundle).open(
        tflite_bundle.artifact("tflite", "int8-a16")
    )
    wanted = reference.run(feeds)
    for name, expected in outputs["fp32"].items():
        assert snr_db(outputs["int8-a16"][name], wanted[name]) > 40
        assert snr_db(outputs["int8-a16"][name], expected) > snr_db(outputs["int8"][name], expected) + 1


def snr_db(values: np.ndarray, reference: np.ndarray) -> float:
    return float(10 * np.log10(np.square(reference).sum() / np.square(values - reference).sum()))


def test_dynamic_weights_are_int8_for_each_channel_and_activations_float(tflite_bundle: Bundle) -> None:
    opened = Opened(tflite_bundle, "int8-dynamic")
    assert opened.types({"CONV_2D"}, 0) == {"float32": opened.count("CONV_2D")}
    assert opened.types({"CONV_2D"}, 1) == {"int8": opened.count("CONV_2D")}
    assert opened.types({"DEQUANTIZE"}, 0) == {"int8": opened.count("DEPTHWISE_CONV_2D")}
    for operator in opened.operators:
        if operator["op_name"] == "CONV_2D":
            output, weight = operator["outputs"][0], opened.details[operator["inputs"][1]]
            channels = opened.details[output]["shape"][-1]
            assert len(weight["quantization_parameters"]["scales"]) == channels


def test_xnnpack_takes_the_whole_dynamic_graph(tflite_bundle: Bundle) -> None:
    opened = Opened(tflite_bundle, "int8-dynamic")
    opened.interpreter.allocate_tensors()
    names = Counter(operator["op_name"] for operator in opened.interpreter._get_ops_details())
    assert names["DELEGATE"] == 1


@pytest.mark.parametrize("precision", ["int8-a16", "int8-dynamic"])
def test_an_image_goes_through_the_whole_pipeline(tflite_bundle: Bundle, precision: str) -> None:
    image = next(iter(open_dataset("builtin", split="test")))
    with load(tflite_bundle.root, "eager") as reference, load(tflite_bundle.root, "tflite", precision) as own:
        wanted, found = reference(image.image_bgr), own(image.image_bgr)
    certain = wanted.above(wanted.scores[0] / 2)
    assert len(certain) > 0
    for box, class_id in zip(certain.boxes_xyxy, certain.class_ids, strict=True):
        distances = np.abs(found.boxes_xyxy[found.class_ids == class_id] - box).max(axis=1)
        assert distances.min() < 6


@pytest.mark.slow
def test_every_precision_is_within_its_budget_on_the_built_in_images(
    full_bundle: Bundle, tflite_bundle: Bundle
) -> None:
    data = open_dataset("builtin", split="test")
    for bundle, precisions in ((full_bundle, {"fp16"}), (tflite_bundle, {"int8-a16", "int8-dynamic"})):
        report = run_parity(bundle, data, precisions=sorted(precisions))
        assert {row.precision for row in report.rows} == precisions
        assert report.passed, [(row.runtime, row.precision, row.reasons) for row in report.rows]


class Joined(nn.Module):
    """A concatenation in the middle, and one that makes the output."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inside = torch.relu(torch.cat([images, images], dim=1))
        return torch.cat([inside, images], dim=-3), images


def test_a_concatenation_inside_the_graph_is_refused_by_name() -> None:
    from edgedet_export.tflite_16x8 import cut

    graph_module: Any = torch.export.export(Joined(), (torch.ones(1, 3, 4, 4),)).module()
    with pytest.raises(VendorError, match="a concatenation inside the graph: cat"):
        cut(graph_module)


class Ends(nn.Module):
    """An output that is a concatenation, and one that is not."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.cat([images + 1, images * 2, images], dim=-3), images - 1


def test_cutting_gives_the_parts_and_says_how_they_belong_together() -> None:
    from edgedet_export.tflite_16x8 import Joint, cut

    images = torch.rand(1, 3, 4, 4)
    graph_module: Any = torch.export.export(Ends(), (images,)).module()
    parted, joints = cut(graph_module)
    assert joints == (Joint(3, 1), Joint(1, 0))
    *parts, last = parted(images)
    whole, untouched = graph_module(images)
    assert torch.equal(torch.cat(parts, dim=1), whole)
    assert torch.equal(last, untouched)
