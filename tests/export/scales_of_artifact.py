"""Reads scales and zero points back out of exported files, each by its vendor's own parser."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgedet.intermediate import RESIDUAL_MARK


@dataclass
class Scales:
    """What integers of a file mean.

    Attributes:
        activations: `(scale, zero point)` of every tensor between operators, scales as float32.
        weights: The scales of every weight, one a channel; all zero points are 0.
    """

    activations: set[tuple[float, int]] = field(default_factory=set)
    weights: set[tuple[float, ...]] = field(default_factory=set)


def scales_of_artifact(path: Path) -> Scales:
    """The scales of a .onnx, .xml or .tflite file."""
    return {".onnx": _onnx, ".xml": _openvino, ".tflite": _tflite}[path.suffix](path)


def _onnx(path: Path) -> Scales:
    import onnx

    graph = onnx.load(path).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = {node.input[1] for node in graph.node if node.op_type in {"Conv", "Gemm", "MatMul"}}
    found = Scales()
    for node in graph.node:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            continue
        scale, zero_point = (constants[name] for name in node.input[1:3])
        if node.output[0] in weights:
            assert not zero_point.any()
            found.weights.add(tuple(scale.reshape(-1).tolist()))
        elif constants.get(node.input[0], zero_point).dtype != np.int32:  # biases follow from the others
            found.activations.add((float(scale), int(zero_point)))
    return found


def _openvino(path: Path) -> Scales:
    import openvino

    found = Scales()
    for operator in openvino.Core().read_model(path).get_ops():
        if operator.get_type_name() == "FakeQuantize" and not _is_mark(operator):
            low, high = (_constant(operator.input_value(i).get_node()).astype(np.float64) for i in (1, 2))
            assert operator.get_attributes()["levels"] == 256
            assert low.size == high.size == 1
            scale = (high.item() - low.item()) / 255
            found.activations.add((float(np.float32(scale)), round(-low.item() / scale)))
        elif operator.get_type_name() in {"Convolution", "GroupConvolution", "MatMul"}:
            found.weights.add(_weight_scales(operator.input_value(1).get_node()))
    return found


def _is_mark(node: Any) -> bool:
    """Whether it only says that a convolution adds a residual (`passes/mark_residuals.py`)."""
    return RESIDUAL_MARK in str(node.get_friendly_name())


def _weight_scales(node: Any) -> tuple[float, ...]:
    """The factors of an int8 constant, which may be reshaped behind them."""
    while node.get_type_name() == "Reshape":
        node = node.input_value(0).get_node()
    assert node.get_type_name() == "Multiply", node.get_type_name()
    integers, scale = (node.input_value(i).get_node() for i in (0, 1))
    if integers.get_type_name() == "Subtract":
        integers, zero_points = (integers.input_value(i).get_node() for i in (0, 1))
        assert not _constant(zero_points).any()
    assert _constant(integers).dtype == np.int8
    return tuple(_constant(scale).reshape(-1).tolist())


def _constant(node: Any) -> np.ndarray:
    """The constant that a node reshapes or converts."""
    while node.get_type_name() != "Constant":
        assert node.get_type_name() in {"Convert", "Reshape"}, node.get_type_name()
        node = node.input_value(0).get_node()
    return np.asarray(node.data)


def _tflite(path: Path) -> Scales:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    graph, builtin = model.subgraphs[0], schema.BuiltinOperator
    weighted = {builtin.CONV_2D, builtin.DEPTHWISE_CONV_2D, builtin.FULLY_CONNECTED}
    codes = [code.builtinCode for code in model.operatorCodes]
    weights = {op.inputs[1] for op in graph.operators if codes[op.opcodeIndex] in weighted}
    found = Scales()
    for index, tensor in enumerate(graph.tensors):
        if tensor.type != schema.TensorType.INT8:
            continue
        scale = np.asarray(tensor.quantization.scale, np.float32)
        zero_points = np.asarray(tensor.quantization.zeroPoint)
        if index in weights:
            assert not zero_points.any()
            found.weights.add(tuple(scale.tolist()))
        else:
            found.activations.add((float(scale.item()), int(zero_points.item())))
    return found
