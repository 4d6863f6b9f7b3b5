"""Quantize what a convolution adds to a residual, which OpenVINO takes as leave to add in the convolution.

Its CPU plugin computes a convolution, the addition of an integer tensor and the quantization of the sum in
one kernel only where a quantization stands between the two. It does not execute that one: with a range
sixteen times as wide, which would leave four bits, outputs stay within 30 dB of the reference
(`tests/export/test_residual_marks.py`). Other devices may execute it: its range then holds all that the sum
can be made of, in steps somewhat wider than those of the sum.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgedet.intermediate import RESIDUAL_MARK
from edgedet_export.passes.grids import quantized_range

_LEVELS = 255


def mark_residuals(model: ir.Model) -> int:
    """Put a quantization behind every convolution whose output is added to integers, to be quantized."""
    marked = 0
    for node in list(model.graph):
        if node.op_type != "Add" or node.outputs[0].is_graph_output():
            continue
        readers = [reader for reader, _ in node.outputs[0].uses()]
        producers = [value.producer() if value is not None else None for value in node.inputs]
        kinds = [producer.op_type if producer is not None else "" for producer in producers]
        if sorted(kinds) != ["Conv", "DequantizeLinear"] or [r.op_type for r in readers] != [
            "QuantizeLinear"
        ]:
            continue
        own, other = kinds.index("Conv"), kinds.index("DequantizeLinear")
        convolution, dequantization = producers[own], producers[other]
        assert convolution is not None
        assert dequantization is not None
        if len(convolution.outputs[0].uses()) != 1:
            continue
        (low, high), (least, most) = quantized_range(readers[0]), quantized_range(dequantization)
        node.replace_input_with(own, _quantized(model, convolution, low - most, high - least))
        marked += 1
    return marked


def _quantized(model: ir.Model, convolution: ir.Node, low: float, high: float) -> ir.Value:
    """The output of a convolution, quantized to uint8 and back."""
    source = convolution.outputs[0]
    scale = np.float32((high - low) / _LEVELS)
    zero_point = np.uint8(np.clip(round(-low / float(scale)), 0, _LEVELS))
    grid = []
    for role, value in (("scale", scale), ("zero_point", zero_point)):
        name = f"{convolution.name}{RESIDUAL_MARK}_{role}"
        tensor = ir.tensor(value, name=name)
        entry = ir.Value(name=name, const_value=tensor, shape=ir.Shape(()), type=ir.TensorType(tensor.dtype))
        model.graph.register_initializer(entry)
        grid.append(entry)
    pair = []
    for kind, dtype in (("QuantizeLinear", ir.DataType.UINT8), ("DequantizeLinear", ir.DataType.FLOAT)):
        node = ir.node(kind, [source, *grid], name=f"{convolution.name}{RESIDUAL_MARK}_{kind}")
        source = node.outputs[0]
        source.name, source.shape, source.dtype = node.name, convolution.outputs[0].shape, dtype
        pair.append(node)
    model.graph.insert_after(convolution, pair)
    return source
