"""Drop the quantization behind a concatenation whose parts are quantized alike.

It changes nothing: values that were moved are still on their grid. OpenVINO would move it in front of the
concatenation, where each part then has two quantizations, and compute the parts in float for them.
"""

from __future__ import annotations

import onnx_ir as ir

from edgedet_export.passes.drop_clips import constant

_MOVES = {"Concat", "MaxPool", "Reshape", "Transpose"}


def drop_requantization(model: ir.Model) -> int:
    """Remove every quantization, with the dequantizations behind it, whose values are on its grid already."""
    dropped = 0
    for node in list(model.graph):
        if node.op_type != "QuantizeLinear" or not _is_on_grid(node):
            continue
        source = node.inputs[0]
        assert source is not None
        for reader, _ in list(node.outputs[0].uses()):
            ir.convenience.replace_all_uses_with(reader.outputs[0], source)
            model.graph.remove(reader, safe=True)
        model.graph.remove(node, safe=True)
        dropped += 1
    return dropped


def _is_on_grid(quantization: ir.Node) -> bool:
    source = quantization.inputs[0]
    move = source.producer() if source is not None else None
    if move is None or move.op_type not in _MOVES:
        return False
    readers = [reader for reader, _ in quantization.outputs[0].uses()]
    if any(one.op_type != "DequantizeLinear" or one.outputs[0].is_graph_output() for one in readers):
        return False
    parts = [value for value in move.inputs if value is not None and value.const_value is None]
    return all(_has_grid_of(part.producer(), quantization) for part in parts)


def _has_grid_of(node: ir.Node | None, quantization: ir.Node) -> bool:
    if node is None or node.op_type != "DequantizeLinear":
        return False
    pairs = zip(node.inputs[1:3], quantization.inputs[1:3], strict=True)
    return all((constant(own) == constant(other)).all() for own, other in pairs)
