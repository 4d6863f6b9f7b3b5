"""What is no graph for TensorRT is refused, with NVIDIA's sentence where its parser has one, and with ours.

Eight faults are planted in the graph of the detector of the built-in shapes. The parser is that of TensorRT
for RTX; where it is not installed, our sentences alone are held.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedet.bundle import Bundle
from edgedet.errors import VerificationError
from edgedet.spec import DetectorSpec
from edgedet_export import typed_onnx
from edgedet_export.rtx_target import TensorRtRtxTarget
from edgedet_export.tensorrt_target import TensorRtTarget
from edgedet_export.typed_graph import typed_problems
from edgedet_export.typed_onnx import judge

HAS_PARSER = importlib.util.find_spec("tensorrt_rtx_bindings") is not None


def _constant(model: onnx.ModelProto, name: str, values: Any) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    return name


def _first_pair(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The quantization of the image and what dequantizes it."""
    first = next(n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "images")
    return [first, *(n for n in model.graph.node if n.input and n.input[0] == first.output[0])]


def _behind_first_convolution(model: onnx.ModelProto, nodes: Callable[[str, str], list[Any]]) -> None:
    """Nodes between the first convolution and whatever reads it, from a name to a name."""
    nodes_of_model = list(model.graph.node)
    index = next(i for i, n in enumerate(nodes_of_model) if n.op_type == "Conv")
    convolution = model.graph.node[index]
    read = convolution.output[0]
    convolution.output[0] = "planted_in"
    for offset, node in enumerate(nodes("planted_in", read)):
        model.graph.node.insert(index + 1 + offset, node)


def asymmetric(model: onnx.ModelProto) -> None:
    zero_point = _constant(model, "planted", np.int8(3))
    for node in _first_pair(model):
        node.input[2] = zero_point


def unsigned(model: onnx.ModelProto) -> None:
    zero_point = _constant(model, "planted", np.uint8(0))
    pair = _first_pair(model)
    for node in pair:
        node.input[2] = zero_point
    kept = [info for info in model.graph.value_info if info.name != pair[0].output[0]]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)


def per_channel(model: onnx.ModelProto) -> None:
    scales = _constant(model, "planted_scales", np.array([0.02, 0.03, 0.04], np.float32))
    zero_points = _constant(model, "planted_zeros", np.zeros(3, np.int8))
    for node in _first_pair(model):
        node.input[1], node.input[2] = scales, zero_points
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("axis", 1))


def half_an_addition(model: onnx.ModelProto) -> None:
    producers = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        for index, name in enumerate(node.input if node.op_type == "Add" else ()):
            if producers[name].op_type == "DequantizeLinear":
                node.input[index] = producers[producers[name].input[0]].input[0]
                return
    raise AssertionError("no addition reads integers")


def in_float64(model: onnx.ModelProto) -> None:
    one = _constant(model, "planted", np.float64(1))
    _behind_first_convolution(
        model,
        lambda source, read: [
            helper.make_node("Cast", [source], ["planted_64"], to=TensorProto.DOUBLE),
            helper.make_node("Mul", ["planted_64", one], ["planted_product"]),
            helper.make_node("Cast", ["planted_product"], [read], to=TensorProto.FLOAT),
        ],
    )


def in_int64(model: onnx.ModelProto) -> None:
    one = _constant(model, "planted", np.int64(1))
    _behind_first_convolution(
        model,
        lambda source, read: [
            helper.make_node("Cast", [source], ["planted_64"], to=TensorProto.INT64),
            helper.make_node("Mul", ["planted_64", one], ["planted_product"]),
            helper.make_node("Cast", ["planted_product"], [read], to=TensorProto.FLOAT),
        ],
    )


def dynamic_scale(model: onnx.ModelProto) -> None:
    share = _constant(model, "planted", np.float32(1 / 127))
    pair = _first_pair(model)
    for index, node in enumerate(
        (
            helper.make_node("Abs", ["images"], ["planted_abs"]),
            helper.make_node("ReduceMax", ["planted_abs"], ["planted_max"], keepdims=0),
            helper.make_node("Mul", ["planted_max", share], ["planted_scale"]),
        )
    ):
        model.graph.node.insert(index, node)
    for node in pair:
        node.input[1] = "planted_scale"


def unknown_operator(model: onnx.ModelProto) -> None:
    _behind_first_convolution(
        model,
        lambda source, read: [
            helper.make_node("Det", [source], ["planted_determinants"]),
            helper.make_node("Identity", [source], [read]),
        ],
    )


@dataclass(frozen=True)
class Fault:
    """What is planted, our sentence, and NVIDIA's: "" where its parser takes the graph without a word."""

    plant: Callable[[onnx.ModelProto], None]
    ours: str
    theirs: str = ""


FAULTS = (
    Fault(asymmetric, "has the zero point 3: TensorRT's is 0", "Non-zero zero point is not supported"),
    Fault(unsigned, "is uint8: TensorRT quantizes to int8", "Defaulting to INT8 instead"),
    Fault(per_channel, "has 3 scales: TensorRT takes one for an activation"),
    Fault(half_an_addition, "reads an operand without Q and DQ: TensorRT adds floats there"),
    Fault(in_float64, "computes in float64: TensorRT computes in float32, float16 and int8"),
    Fault(in_int64, "gives int64 outside of shapes"),
    Fault(dynamic_scale, "has a scale that is computed: TensorRT takes constants"),
    Fault(unknown_operator, "Det is an operator that the parser lacks", "UNSUPPORTED_NODE in checkDet"),
)


@pytest.fixture(scope="module")
def spec(full_bundle: Bundle) -> DetectorSpec:
    (artifact,) = (
        a for a in full_bundle.manifest.artifacts if (a.target, a.precision) == ("tensorrt", "int8")
    )
    return full_bundle.spec_of(artifact)


@pytest.fixture(scope="module")
def sound(full_bundle: Bundle) -> Path:
    return full_bundle.root / "int8" / "model.trt.onnx"


@pytest.fixture
def planted(sound: Path, tmp_path: Path) -> Callable[[Fault], Path]:
    def plant(fault: Fault) -> Path:
        model = onnx.load(sound)
        fault.plant(model)
        onnx.checker.check_model(model, full_check=True)  # it is ONNX, if not for TensorRT
        onnx.save(model, tmp_path / "model.trt.onnx")
        return tmp_path / "model.trt.onnx"

    return plant


@pytest.fixture
def no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", ["model.trt.onnx", "model.rtx.onnx"])
def test_the_graphs_that_are_exported_pass(full_bundle: Bundle, precision: str, name: str, spec: Any) -> None:
    path = full_bundle.root / precision / name
    assert typed_problems(ir.load(path)) == []
    said = judge(path, spec)
    assert "accepted it" in said if HAS_PARSER else "did not judge it" in said


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.plant.__name__)
def test_a_planted_fault_is_refused_with_nvidias_sentence_and_ours(
    planted: Callable[[Fault], Path], spec: DetectorSpec, fault: Fault
) -> None:
    if not HAS_PARSER and fault.plant is unknown_operator:
        pytest.skip("the extra tensorrt-rtx is not installed: only the parser knows its operators")
    with pytest.raises(VerificationError, match=re.escape(fault.ours)) as caught:
        judge(planted(fault), spec)
    assert "int8/model.trt.onnx is not a graph for TensorRT" in str(caught.value)
    assert (fault.theirs or "no word") in str(caught.value) or not (HAS_PARSER and fault.theirs)
    assert ("NVIDIA's parser: " in str(caught.value)) is (HAS_PARSER and bool(fault.theirs))


@pytest.mark.usefixtures("no_parser")
@pytest.mark.parametrize("fault", FAULTS[:-1], ids=lambda fault: fault.plant.__name__)
def test_a_planted_fault_is_refused_without_nvidias_parser_too(
    planted: Callable[[Fault], Path], spec: DetectorSpec, fault: Fault
) -> None:
    with pytest.raises(VerificationError, match=re.escape(fault.ours)):
        judge(planted(fault), spec)


@pytest.mark.usefixtures("no_parser")
def test_a_graph_that_no_parser_judged_says_so(sound: Path, spec: DetectorSpec) -> None:
    assert judge(sound, spec) == (
        "NVIDIA's parser did not judge it: no Python package 'tensorrt_rtx_bindings'"
    )


@pytest.mark.parametrize("target", [TensorRtTarget(), TensorRtRtxTarget()], ids=lambda target: target.runtime)
@pytest.mark.parametrize("fault", FAULTS[:1] + FAULTS[6:7], ids=lambda fault: fault.plant.__name__)
def test_neither_target_builds_what_is_refused(
    planted: Callable[[Fault], Path],
    spec: DetectorSpec,
    target: Any,
    fault: Fault,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The builder of TensorRT for RTX crashes on a scale that is computed."""
    from edgedet_export.target import Source

    model = ir.load(planted(fault))
    monkeypatch.setattr(typed_onnx, "to_onnx", lambda *_: model)
    source: Any = Source(None, (), spec)  # type: ignore[arg-type]
    (tmp_path / "out").mkdir()
    with pytest.raises(VerificationError, match=re.escape(fault.ours)):
        target.export(source, tmp_path / "out")
    assert [path.suffix for path in (tmp_path / "out").iterdir()] == [".onnx"]


def test_of_many_places_three_are_named(sound: Path, spec: DetectorSpec, tmp_path: Path) -> None:
    model = onnx.load(sound)
    zero_point = _constant(model, "planted", np.int8(1))
    pairs = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    for node in pairs:
        node.input[2] = zero_point
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(VerificationError, match=rf"and {len(pairs) - 3} more") as caught:
        judge(tmp_path / "model.onnx", spec)
    assert str(caught.value).count("has the zero point 1") == 3


def test_an_addition_of_a_layer_that_a_recipe_keeps_float_is_its_own_business(
    planted: Callable[[Fault], Path], spec: DetectorSpec
) -> None:
    assert spec.quantization is not None
    quantization = spec.quantization.model_copy(update={"float_layers": ("conv2d_5",)})
    judge(planted(FAULTS[3]), spec.model_copy(update={"quantization": quantization}))


def test_shapes_may_be_computed_in_int64(tmp_path: Path) -> None:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 4, 4])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    constants = {"first": np.array([0]), "rest": np.array([-1])}
    graph = helper.make_graph(
        [
            helper.make_node("Shape", ["images"], ["shape"]),
            helper.make_node("Gather", ["shape", "first"], ["batch"]),
            helper.make_node("Concat", ["batch", "rest"], ["wanted"], axis=0),
            helper.make_node("Reshape", ["images", "wanted"], ["out"]),
        ],
        "shapes",
        [images],
        [out],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "a.onnx")
    assert typed_problems(ir.load(tmp_path / "a.onnx")) == []
