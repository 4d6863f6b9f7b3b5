"""Rewrites of ONNX graphs for OpenVINO, on small graphs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedet.intermediate import RESIDUAL_MARK
from edgedet_export.passes.drop_requantization import drop_requantization
from edgedet_export.passes.mark_residuals import mark_residuals

GRID = (0.5, 100)
SHAPE = (1, 2, 3, 3)


def graph_of(nodes: list[onnx.NodeProto], output: str, grids: dict[str, tuple[float, int]]) -> ir.Model:
    """A graph from `x`, with scales and zero points by name, and the weight of a convolution."""
    constants = [numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), "weight")]
    for name, (scale, zero_point) in grids.items():
        constants.append(numpy_helper.from_array(np.float32(scale), f"{name}_scale"))
        constants.append(numpy_helper.from_array(np.uint8(zero_point), f"{name}_zero"))
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)]
    results = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "one", ends, results, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def quantized(source: str, name: str, grid: str) -> list[onnx.NodeProto]:
    """A quantization and a dequantization, from `source` to `name`."""
    parameters = [f"{grid}_scale", f"{grid}_zero"]
    return [
        helper.make_node("QuantizeLinear", [source, *parameters], [f"{name}_q"], name=f"{name}_q"),
        helper.make_node("DequantizeLinear", [f"{name}_q", *parameters], [name], name=name),
    ]


def kinds(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def run(model: ir.Model) -> np.ndarray:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    image = np.random.default_rng(1).normal(0, 20, SHAPE).astype(np.float32)
    found: np.ndarray = session.run(None, {"x": image})[0]
    return found


def concatenation(second: str) -> ir.Model:
    nodes = [
        *quantized("x", "a", "own"),
        *quantized("x", "b", second),
        helper.make_node("Concat", ["a", "b"], ["both"], axis=1),
        *quantized("both", "moved", "own"),
        helper.make_node("Relu", ["moved"], ["y"]),
    ]
    return graph_of(nodes, "y", {"own": GRID, "other": (0.25, 100)})


def test_a_quantization_of_what_is_on_its_grid_is_dropped_and_nothing_changes() -> None:
    model = concatenation("own")
    before = run(model)
    assert drop_requantization(model) == 1
    assert kinds(model)["QuantizeLinear"] == kinds(model)["DequantizeLinear"] == 2
    assert np.array_equal(run(model), before)


def test_one_of_another_grid_stays() -> None:
    model = concatenation("other")
    assert drop_requantization(model) == 0


def residual(reader: str = "y", *, both: bool = False) -> ir.Model:
    """The image in integers plus a convolution of it."""
    nodes = [
        *quantized("x", "a", "own"),
        helper.make_node("Conv", ["a", "weight"], ["conv"], name="conv"),
        helper.make_node("Add", ["conv", "conv" if both else "a"], ["sum"]),
        *quantized("sum", reader, "sum"),
    ]
    return graph_of(nodes, "y" if reader == "y" else "sum", {"own": GRID, "sum": (1.0, 128)})


def test_a_convolution_added_to_integers_is_marked_with_a_range_that_holds_all_it_can_be() -> None:
    model = residual()
    assert mark_residuals(model) == 1
    (mark,) = (node for node in model.graph if node.name == f"conv{RESIDUAL_MARK}_QuantizeLinear")
    scale, zero_point = (value.const_value.numpy() for value in mark.inputs[1:])
    # The sum is -128..127, the image -50..77.5, so that the convolution gives -205.5..177.
    assert scale == pytest.approx(382.5 / 255)
    assert int(zero_point) == 137
    assert [node.op_type for node in model.graph][-5:] == [
        "QuantizeLinear",
        "DequantizeLinear",
        "Add",
        "QuantizeLinear",
        "DequantizeLinear",
    ]
    run(model)


def test_a_sum_of_a_convolution_with_itself_and_one_that_stays_float_are_left_alone() -> None:
    assert mark_residuals(residual(both=True)) == 0
    assert mark_residuals(residual("unread")) == 0
