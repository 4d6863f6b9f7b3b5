"""Drop the quantization behind a concatenation whose parts are quantized alike.

Values that were only put side by side are still on their grid. OpenVINO would move that quantization in front
of the concatenation, where each part then has two of them, and compute the parts in float for both.
"""

from __future__ import annotations

import onnx_ir as ir

from edgedet_export.passes.grids import constant


def drop_requantization(model: ir.Model) -> int:
    """Remove such quantizations and the dequantizations behind them; returns how many."""
    dropped = 0
    for node in list(model.graph):
        source = node.inputs[0] if node.op_type == "QuantizeLinear" else None
        if source is None or _kind_of(source) != "Concat" or not _has_grid_of(source, node):
            continue
        readers = [reader for reader, _ in node.outputs[0].uses()]
        if any(one.op_type != "DequantizeLinear" or one.outputs[0].is_graph_output() for one in readers):
            continue
        for reader in readers:
            ir.convenience.replace_all_uses_with(reader.outputs[0], source)
            model.graph.remove(reader, safe=True)
        model.graph.remove(node, safe=True)
        dropped += 1
    return dropped


def _has_grid_of(value: ir.Value | None, quantization: ir.Node) -> bool:
    """Whether a quantization would leave all elements of a value as they are."""
    node = value.producer() if value is not None else None
    if node is None:
        return False
    if node.op_type == "Concat":
        return all(_has_grid_of(part, quantization) for part in node.inputs)
    if node.op_type != "DequantizeLinear":
        return False
    pairs = zip(node.inputs[1:], quantization.inputs[1:], strict=False)
    same_length = len(node.inputs) == len(quantization.inputs)
    return same_length and all((constant(own) == constant(other)).all() for own, other in pairs)


def _kind_of(value: ir.Value) -> str:
    producer = value.producer()
    return producer.op_type if producer is not None else ""
