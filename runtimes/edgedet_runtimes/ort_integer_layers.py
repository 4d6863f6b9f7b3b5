"""The layers of an ONNX file that ONNX Runtime computes with int8 weights, with these weights.

A convolution between DequantizeLinear operators becomes one in integers when the file is loaded, and so does
what moves or clips integers on the way to it. Where that cannot be excluded, a layer counts as one: MLAS
computes ConvInteger exactly, for instance, and a convolution without a QuantizeLinear behind it in float.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedet.saturation import IntegerLayer
from edgedet_runtimes.ort_model import DTYPES, Graph, Node, read_graphs

_UINT8, _INT8 = 2, 3
_EIGHT_BITS = {_UINT8, _INT8, None}  # None where the file does not tell
# TensorProto.DataType of ONNX 1.23. Another number may be anything.
_TYPES = range(1, 27)

Weight = NDArray[Any]

# Of operators that read integers, the inputs that are weights, each with that of its zero point.
_INTEGER = {
    "ConvInteger": ((1, 3),),
    "DynamicQuantizeLSTM": ((1, 9), (2, 11)),
    "DynamicQuantizeMatMul": ((1, 3),),
    "MatMulInteger": ((1, 3),),
    "MatMulIntegerToFloat": ((1, 5),),
    "QAttention": ((1, 7),),
    "QGemm": ((3, 5),),
    "QLinearConv": ((3, 5),),
    "QLinearMatMul": ((3, 5),),
}
# Of operators in floats it is the second.
_FLOAT = {"Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul"}

# What reads int8 constants and sums no products of them.
_HARMLESS = {
    "Cast",
    "Concat",
    "Constant",
    "DequantizeLinear",
    "Expand",
    "Gather",
    "Identity",
    "QLinearAdd",
    "QLinearConcat",
    "QLinearMul",
    "QLinearWhere",
    "Reshape",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
    "Where",
}
# What computes in float what a layer then reads in float, too. Anything else may be removed, since it does
# nothing (adding 0, a Cast to the same type), or may move or clip integers.
_STAYS_FLOAT = _FLOAT | {
    "Elu",
    "Erf",
    "Exp",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "Mish",
    "Selu",
    "Shape",
    "Sigmoid",
    "Size",
    "Softmax",
    "Softplus",
    "Sqrt",
    "Tanh",
}


def integer_layers(model: bytes) -> tuple[IntegerLayer, ...]:
    """Every layer with int8 weights and 8-bit activations, in the order of the file.

    Raises:
        ValueError: The bytes are not a protobuf message.
    """
    return tuple(layer for graph in read_graphs(model) for layer in _layers(graph))


def _layers(graph: Graph) -> Iterator[IntegerLayer]:
    for node in graph.nodes:
        if node.type in _INTEGER:
            for weight, zero_point in _INTEGER[node.type]:
                unread = _Operand(_type_of(graph, node, zero_point), _nothing)
                yield from _layer(node, _operand(graph, _input(node, weight)) or unread)
        elif node.type in _FLOAT:
            operand = _operand(graph, _input(node, 1))
            if operand is not None and _is_quantized(graph, _input(node, 0)):
                yield from _layer(node, operand)
        elif node.type not in _HARMLESS and any(_is_int8_matrix(graph, name) for name in node.inputs):
            yield IntegerLayer(_name(node), None)


def _input(node: Node, index: int) -> str:
    """The tensor there; "" where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else ""


def _layer(node: Node, operand: _Operand) -> Iterator[IntegerLayer]:
    """The layer of a node, unless no kernel adds its products in 16 bits."""
    if operand.element_type in {_INT8, None}:
        values = operand.values()
        weight = None if values is None or values.ndim == 0 else _oriented(node, values)
        yield IntegerLayer(_name(node), weight, weight is not None and _is_depthwise(node, weight))


def _name(node: Node) -> str:
    """Names are optional in ONNX; those of tensors are not."""
    return node.name or node.outputs[0]


def _is_depthwise(node: Node, weight: Weight) -> bool:
    groups = node.integer("group", 1)
    return "Conv" in node.type and groups > 1 and weight.shape[0] == groups and weight.shape[1] == 1


def _oriented(node: Node, weight: Weight) -> Weight:
    """As `[outputs, inputs of a group, ...]`."""
    if node.type == "ConvTranspose":
        groups = node.integer("group", 1)
        by_group = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        return by_group.swapaxes(1, 2).reshape(-1, by_group.shape[1], *weight.shape[2:])
    if "Conv" in node.type:
        return weight
    if node.integer("transB", 0):
        return weight if node.type != "FusedMatMul" else weight.reshape(-1, weight.shape[-1])
    columns = weight.reshape(*weight.shape, 1) if weight.ndim == 1 else weight
    return columns.swapaxes(-1, -2).reshape(-1, columns.shape[-2])


@dataclass(frozen=True, slots=True, eq=False)
class _Operand:
    """An operand of a layer in integers.

    Attributes:
        element_type: `TensorProto.DataType`; None where the file does not tell.
        values: Reads it; gives None where it is no constant, or one that cannot be read.
    """

    element_type: int | None
    values: Callable[[], Weight | None]


def _operand(graph: Graph, tensor: str) -> _Operand | None:
    """What a layer reads there, behind a DequantizeLinear; None where that is computed, and so in float."""
    if tensor in graph.constants:
        constant = graph.constants[tensor]
        return _Operand(_known(constant.element_type), constant.array)
    node = graph.makers.get(tensor)
    if node is None:
        return _Operand(None, _nothing) if graph.is_function else None
    if node.type == "Constant":
        value = node.tensor("value")
        return None if value is None else _Operand(_known(value.element_type), value.array)
    if node.type == "QuantizeLinear":
        return _Operand(_quantized_type(graph, node), lambda: _quantized(graph, node))
    if node.type == "DynamicQuantizeLinear":
        return _Operand(_UINT8, _nothing)
    if node.type == "DequantizeLinear":
        return _operand(graph, node.inputs[0]) or _Operand(_type_of(graph, node, 2), _nothing)
    if node.type in {"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}:
        found = _operand(graph, node.inputs[0])
        return None if found is None else _Operand(found.element_type, lambda: _moved(graph, node, found))
    return _Operand(None, _nothing) if _is_quantized(graph, tensor) else None


def _known(element_type: int) -> int | None:
    return element_type if element_type in _TYPES else None


def _type_of(graph: Graph, node: Node, index: int) -> int | None:
    """Type of an input that is a constant, such as a zero point; None for another, or none."""
    found = _operand(graph, _input(node, index)) if _input(node, index) else None
    return None if found is None else found.element_type


def _nothing() -> Weight | None:
    return None


def _moved(graph: Graph, node: Node, operand: _Operand) -> Weight | None:
    values = operand.values()
    if values is None or node.type == "Identity":
        return values
    if node.type == "Transpose":
        return np.transpose(values, node.integers("perm") or None)
    shape = _constant(graph, node.inputs[1]) if node.type == "Reshape" else None
    return None if shape is None or (shape == 0).any() else values.reshape(shape)


def _constant(graph: Graph, tensor: str) -> Weight | None:
    """Values of floats or integers that are a constant."""
    if tensor in graph.constants:
        return graph.constants[tensor].array()
    node = graph.makers.get(tensor)
    value = node.tensor("value") if node is not None and node.type == "Constant" else None
    return None if value is None else value.array()


def _quantized_type(graph: Graph, node: Node) -> int | None:
    """What a QuantizeLinear writes."""
    if _input(node, 2):
        return _type_of(graph, node, 2)
    return _known(node.integer("output_dtype", 0) or _UINT8)


def _quantized(graph: Graph, node: Node) -> Weight | None:
    """The integers that a QuantizeLinear makes of constant floats."""
    values, scale = (_constant(graph, name) for name in node.inputs[:2])
    zero_point = _zero_point(graph, node)
    if values is None or scale is None or zero_point is None or zero_point.dtype.kind not in "iu":
        return None
    if node.integer("block_size", 0) or node.integer("precision", 0):
        return None
    shape = [1] * values.ndim
    if scale.size > 1:
        shape[node.integer("axis", 1)] = -1
    limits = np.iinfo(zero_point.dtype)
    zeros = zero_point.astype(np.float32).reshape(shape if zero_point.size > 1 else [1] * values.ndim)
    steps = np.rint(values.astype(np.float32) / scale.astype(np.float32).reshape(shape)) + zeros
    return np.asarray(np.clip(steps, limits.min, limits.max).astype(zero_point.dtype))


def _zero_point(graph: Graph, node: Node) -> Weight | None:
    """That of a QuantizeLinear, in the type that it writes; None where it is no constant of such a type."""
    if _input(node, 2):
        return _constant(graph, _input(node, 2))
    element_type = _quantized_type(graph, node)
    dtype = None if element_type is None else DTYPES.get(element_type)
    return None if dtype is None else np.zeros((), dtype)


def _is_quantized(graph: Graph, tensor: str) -> bool:
    """Whether activations may be 8-bit integers where a layer reads them."""
    waiting, seen = [tensor], set()
    while waiting:
        name = waiting.pop()
        node = graph.makers.get(name)
        if name in seen or (node is None and not graph.is_function):
            continue
        seen.add(name)
        if node is None:
            return True
        if node.type == "DequantizeLinear":
            operand = _operand(graph, name)
            if operand is None or operand.element_type in _EIGHT_BITS:
                return True
        elif node.type not in _STAYS_FLOAT:
            waiting += [name for name in node.inputs if name]
    return False


def _is_int8_matrix(graph: Graph, tensor: str) -> bool:
    """Whether a tensor is an int8 constant of several axes."""
    constant = graph.constants.get(tensor)
    if constant is None or constant.element_type != _INT8:
        return False
    values = constant.array()
    return values is None or values.ndim > 1
