"""Drop a Clip whose bounds the quantization behind it enforces.

With unsigned or affine activations, QuantizeLinear saturates at the ends of its range. Where that range lies
inside the Clip's, the Clip does nothing, and without it a convolution is directly followed by its
quantization, which is the pattern that integer kernels are matched by.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgedet_export.passes.grids import quantized_range

# A range is derived from values that passed the clamp, and its ends are rounded to float32.
_TOLERANCE = 1e-4


def drop_clips(model: ir.Model) -> int:
    """Remove every Clip or Relu that is read by quantizations alone and cannot bind."""
    dropped = 0
    for node in list(model.graph):
        if node.op_type not in {"Clip", "Relu"}:
            continue
        readers = [user for user, _ in node.outputs[0].uses()]
        if not readers or any(reader.op_type != "QuantizeLinear" for reader in readers):
            continue
        bounds = _bounds(node)
        if bounds is None or not all(_within(quantized_range(reader), bounds) for reader in readers):
            continue
        source = node.inputs[0]
        assert source is not None
        ir.convenience.replace_all_uses_with(node.outputs[0], source)
        model.graph.remove(node, safe=True)
        dropped += 1
    return dropped


def _bounds(node: ir.Node) -> tuple[float, float] | None:
    if node.op_type == "Relu":
        return 0.0, np.inf
    ends = [-np.inf, np.inf]
    for position, value in enumerate(node.inputs[1:3]):
        if value is not None:
            if value.const_value is None:
                return None
            ends[position] = float(value.const_value.numpy())
    return ends[0], ends[1]


def _within(inner: tuple[float, float], outer: tuple[float, float]) -> bool:
    tolerance = _TOLERANCE * (inner[1] - inner[0])
    return inner[0] >= outer[0] - tolerance and inner[1] <= outer[1] + tolerance
