"""What TensorRT takes of a strongly typed ONNX graph, as far as NVIDIA's parser does not say it.

The parser refuses a zero point that is not 0 and operators that it lacks. It reads uint8 as int8 with a
warning, takes float64, int64, a scale for each channel of an activation and a float added to integers
without a word, and a scale that is computed, on which the builder then crashes. `tests/export/
test_typed_graph.py` holds what version 1.7 of TensorRT for RTX does with each. What is right: "Working with
Quantized Types" of NVIDIA's TensorRT documentation.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

_PAIR = frozenset({"DequantizeLinear", "QuantizeLinear"})
# What stands between the convolution of a kernel and the addition that it takes in, or moves integers.
_CLAMPS = frozenset({"Clip", "Relu"})
_MOVES = frozenset({"Concat", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
_WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
_TYPES = "float32, float16 and int8"


def typed_problems(model: ir.Model, *, keeps_float: bool = False) -> list[str]:
    """Sentences on every place that TensorRT would refuse, or compute otherwise or in float.

    Args:
        model: Of the standard's operators, with fixed shapes; types that are missing are inferred into it.
        keeps_float: Some layers are in float on purpose, so that an addition may have one operand of each.
    """
    ShapeInferencePass()(model)
    found: list[str] = []
    for node in model.graph:
        if node.op_type in _PAIR:
            found += _of_quantization(node)
        if node.op_type == "Add" and not keeps_float:
            found += _of_addition(node)
        found += _of_types(node)
    return found


def _of_quantization(node: ir.Node) -> Iterator[str]:
    name = _name(node)
    values = (node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None)
    if any(value is not None and value.const_value is None for value in values):
        yield f"{name} has a scale that is computed: TensorRT takes constants"
        return
    zero_point = values[1]
    kind = None if zero_point is None else zero_point.dtype
    if node.op_type == "DequantizeLinear":
        kind = node.inputs[0].dtype if node.inputs[0] is not None else None
    if kind != ir.DataType.INT8:
        yield f"{name} is {'uint8' if kind is None else str(kind).lower()}: TensorRT quantizes to int8"
    if zero_point is not None and zero_point.const_value is not None:
        offsets = zero_point.const_value.numpy()
        if np.any(offsets):
            yield f"{name} has the zero point {int(offsets.ravel()[0])}: TensorRT's is 0"
    scale, source = values[0], _source(node)
    count = scale.const_value.size if scale is not None and scale.const_value is not None else 1
    if count > 1 and not _is_weight(source):
        yield f"{name} has {count} scales: TensorRT takes one for an activation"


def _of_addition(node: ir.Node) -> Iterator[str]:
    kinds = [_kind(value) for value in node.inputs if value is not None and value.const_value is None]
    if len(kinds) == 2 and set(kinds) != {"float"} and ("float" in kinds or "integers" not in kinds):
        yield f"{_name(node)} reads an operand without Q and DQ: TensorRT adds floats there"


def _of_types(node: ir.Node) -> Iterator[str]:
    values = [*(v for v in node.inputs if v is not None and v.is_initializer()), *node.outputs]
    if any(value.dtype == ir.DataType.DOUBLE for value in values):
        yield f"{_name(node)} computes in float64: TensorRT computes in {_TYPES}"
    computed = any(value.dtype == ir.DataType.INT64 for value in node.outputs)
    if computed and not all(_is_of_shapes(value) for value in node.outputs):
        yield f"{_name(node)} gives int64 outside of shapes: TensorRT computes in {_TYPES}"


def _kind(value: ir.Value) -> str:
    """What an addition reads: "integers" from a DQ, a "float", or a "sum".

    That is of an integer convolution whose kernel takes the addition in, since nothing else reads it.
    """
    node, readers = value.producer(), len(value.uses())
    while node is not None and node.op_type in _MOVES | _CLAMPS and node.inputs[0] is not None:
        value = node.inputs[0]
        node, readers = value.producer(), max(readers, len(value.uses()))
    if node is None:
        return "float"
    if node.op_type == "DequantizeLinear":
        return "integers"
    reads = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    is_integer = node.op_type in _WEIGHTED and reads is not None and reads.op_type == "DequantizeLinear"
    return "sum" if is_integer and readers == 1 else "float"


def _is_of_shapes(value: ir.Value | None) -> bool:
    """Whether an integer is a constant or comes of shapes and constants alone."""
    if value is None or value.const_value is not None:
        return True
    node = value.producer()
    if node is None:
        return False
    return node.op_type in ("Constant", "Shape", "Size") or all(map(_is_of_shapes, node.inputs))


def _source(node: ir.Node) -> ir.Value | None:
    """What was quantized: the input of a pair's first half."""
    value = node.inputs[0]
    before = value.producer() if value is not None else None
    return before.inputs[0] if before is not None and before.op_type == "QuantizeLinear" else value


def _is_weight(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None


def _name(node: ir.Node) -> str:
    return f"{node.op_type} {node.name or node.outputs[0].name}"
