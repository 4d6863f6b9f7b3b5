"""The layers of an OpenVINO model that its CPU plugin computes with int8 weights, with these weights.

The plugin's transformations for low precision make integers of what lies between quantizers: constants behind
Convert, Subtract and Multiply, and constant floats behind a FakeQuantize, as NNCF and POT write them. Where
it cannot be excluded that a layer becomes one in integers, it counts as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from edgedet.saturation import IntegerLayer

Weight = NDArray[Any]

_LAYERS = {
    "Convolution",
    "ConvolutionBackpropData",
    "GroupConvolution",
    "GroupConvolutionBackpropData",
    "MatMul",
}
# What multiplies integers in ways that are not read here, and what runs graphs of its own.
_UNREAD = {"Einsum", "GRUCell", "GRUSequence", "LSTMCell", "LSTMSequence", "RNNCell", "RNNSequence"}
_BODIES = {"If", "Loop", "TensorIterator"}
# What computes in float what a layer then reads in float, too. Anything else may be removed, since it does
# nothing (adding 0), become a zero point (subtraction), or move or clip integers.
_STAYS_FLOAT = _LAYERS | {
    "Elu",
    "Erf",
    "Exp",
    "Gelu",
    "GroupNormalization",
    "HSigmoid",
    "HSwish",
    "HardSigmoid",
    "Log",
    "LogSoftmax",
    "MVN",
    "Mish",
    "NormalizeL2",
    "Selu",
    "ShapeOf",
    "Sigmoid",
    "SoftPlus",
    "Softmax",
    "Sqrt",
    "Swish",
    "Tanh",
}
# What may read quantized values and int8 constants, and sums no products of them.
_HARMLESS = _STAYS_FLOAT | {
    "Add",
    "Assign",
    "AvgPool",
    "BatchNormInference",
    "BatchToSpace",
    "Broadcast",
    "Clamp",
    "Concat",
    "Convert",
    "DepthToSpace",
    "Divide",
    "Equal",
    "FakeQuantize",
    "Gather",
    "GatherElements",
    "GatherND",
    "Greater",
    "GreaterEqual",
    "Interpolate",
    "Less",
    "LessEqual",
    "Maximum",
    "MaxPool",
    "Minimum",
    "Mod",
    "Multiply",
    "NotEqual",
    "PRelu",
    "Pad",
    "Power",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Result",
    "ScatterElementsUpdate",
    "ScatterNDUpdate",
    "ScatterUpdate",
    "Select",
    "ShuffleChannels",
    "Slice",
    "SpaceToBatch",
    "SpaceToDepth",
    "Split",
    "SquaredDifference",
    "Squeeze",
    "StridedSlice",
    "Subtract",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "VariadicSplit",
}
_DEQUANTIZES = {"Convert", "Multiply", "Subtract"}
_MOVES = {"Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_MOST_LEVELS = 256
# By so much of a step, float32 may miss the integer of 0.
_LEAST_OF_A_STEP = 0.01


def integer_layers(model: openvino.Model) -> tuple[IntegerLayer, ...]:
    """Every layer with int8 weights and 8-bit activations, in the order of the model."""
    return tuple(layer for node in model.get_ordered_ops() for layer in _layers(node))


def _layers(node: openvino.Node) -> Iterator[IntegerLayer]:
    kind, name = node.get_type_name(), node.get_friendly_name()
    if kind in _BODIES or (kind not in _LAYERS and _may_multiply(node)):
        yield IntegerLayer(name, None)
    elif kind in _LAYERS and _is_quantized(_source(node, 0)):
        weights = _source(node, 1)
        origin = _origin(weights)
        if origin.get_type_name() == "Constant" and _type(origin) != "i8":
            return  # floats, or integers that no kernel adds in 16 bits
        if origin.get_type_name() not in {"Constant", "FakeQuantize"} and not _is_quantized(weights):
            return
        values = _integers(weights)
        if values is None:
            yield IntegerLayer(name, None)
        elif values.dtype == np.int8:
            weight = _oriented(node, values)
            yield IntegerLayer(name, weight, _is_depthwise(node, values))


def _may_multiply(node: openvino.Node) -> bool:
    """Whether an operator that is not read may sum products of quantized values and int8 weights."""
    if node.get_type_name() in _HARMLESS:
        return False
    sources = [port.get_node() for port in node.input_values()]
    quantized = [one for one in sources if _is_quantized(one)]
    if node.get_type_name() in _UNREAD:
        return len(sources) > 1 and bool(quantized)
    return len(quantized) > 1 and any(map(_is_int8_constant, quantized))


def _is_int8_constant(node: openvino.Node) -> bool:
    origin = _origin(node)
    if origin.get_type_name() == "FakeQuantize":
        return _floats(_source(origin, 0)) is not None
    return origin.get_type_name() == "Constant" and _type(origin) == "i8"


def _source(node: openvino.Node, index: int) -> openvino.Node:
    return node.input_value(index).get_node()


def _type(node: openvino.Node) -> str:
    return str(node.output(0).get_element_type().get_type_name())


def _is_quantized(node: openvino.Node) -> bool:
    """Whether values may be 8-bit integers where a layer reads them."""
    waiting, seen = [node], set()
    while waiting:
        one = waiting.pop()
        kind, identity = one.get_type_name(), _identity(one)
        if identity in seen:
            continue
        seen.add(identity)
        if kind == "FakeQuantize" and one.get_attributes()["levels"] <= _MOST_LEVELS:
            return True
        if kind == "Convert" and _type(_source(one, 0)) in {"i8", "u8"}:
            return True
        if kind not in _STAYS_FLOAT:
            waiting += [port.get_node() for port in one.input_values()]
    return False


def _identity(node: openvino.Node) -> str:
    """Friendly names may come twice in a file; OpenVINO gives every node of a process a name of its own."""
    return str(node.get_name())


def _origin(node: openvino.Node) -> openvino.Node:
    """Where values come from, before they were moved or dequantized."""
    while node.get_type_name() in _DEQUANTIZES | _MOVES:
        node = _dequantized(node)
    return node


def _dequantized(node: openvino.Node) -> openvino.Node:
    """What a node moves, converts or scales: of two operands the larger, since a scale may come first."""
    if node.get_type_name() not in {"Multiply", "Subtract"}:
        return _source(node, 0)
    sources = [port.get_node() for port in node.input_values()]
    return max(sources, key=lambda one: int(np.prod(one.output(0).get_partial_shape().get_min_shape())))


def _integers(node: openvino.Node) -> Weight | None:
    """Integers of a constant, moved as the layer reads them; None where they cannot be told."""
    kind = node.get_type_name()
    if kind == "Constant":
        return np.asarray(node.data)
    if kind == "FakeQuantize":
        return _quantized(node)
    if kind in _DEQUANTIZES:
        return _integers(_dequantized(node))
    values = _integers(_source(node, 0)) if kind in _MOVES else None
    if values is None:
        return None
    if kind == "Transpose":
        order = _source(node, 1)
        if order.get_type_name() != "Constant":
            return None
        return np.asarray(np.transpose(values, order.data))
    return np.asarray(values.reshape(tuple(node.output(0).get_shape())))


def _quantized(node: openvino.Node) -> Weight | None:
    """The integers of a FakeQuantize on constant floats, of the sign that its output range has."""
    values = _floats(_source(node, 0))
    limits = [_floats(_source(node, index)) for index in range(1, 5)]
    if values is None or any(limit is None for limit in limits):
        return None
    low, high, out_low, out_high = (np.asarray(limit, np.float64) for limit in limits)
    steps = node.get_attributes()["levels"] - 1
    with np.errstate(all="ignore"):
        zero = out_low * steps / (out_high - out_low)
        shift = np.rint(zero)
        found = np.rint((np.clip(values, low, high) - low) * steps / (high - low)) + shift
    if not np.isfinite(found).all() or np.abs(zero - shift).max() > _LEAST_OF_A_STEP:
        return None
    if found.min() >= 0 and (shift >= 0).all():
        return np.asarray(found.astype(np.uint8))
    return np.asarray(found.astype(np.int8)) if found.min() >= -128 and found.max() <= 127 else None


def _floats(node: openvino.Node) -> NDArray[Any] | None:
    """Of a constant, which may be kept in float16."""
    while node.get_type_name() == "Convert":
        node = _source(node, 0)
    return np.asarray(node.data) if node.get_type_name() == "Constant" else None


def _is_depthwise(node: openvino.Node, weight: Weight) -> bool:
    is_grouped = node.get_type_name().startswith("Group") and len(weight) > 1
    return is_grouped and weight.shape[1:3] == (1, 1)


def _oriented(node: openvino.Node, weight: Weight) -> Weight:
    """As `[outputs, inputs of a group, ...]`."""
    kind = node.get_type_name()
    if kind == "MatMul":
        matrix = weight.reshape(-1, 1) if weight.ndim == 1 else weight
        rows = matrix if node.get_attributes()["transpose_b"] else matrix.swapaxes(-1, -2)
        return rows.reshape(-1, rows.shape[-1])
    if kind == "ConvolutionBackpropData":
        return weight.swapaxes(0, 1)
    if kind == "GroupConvolutionBackpropData":
        weight = weight.swapaxes(1, 2)
    return weight.reshape(-1, *weight.shape[2:]) if kind.startswith("Group") else weight
