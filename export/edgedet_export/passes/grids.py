"""Scales and zero points of quantizations in an ONNX graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def quantized_range(quantization: ir.Node) -> tuple[float, float]:
    """The least and the largest value that a quantization or a dequantization gives."""
    scale, zero_point = (constant(value) for value in quantization.inputs[1:3])
    limits = np.iinfo(zero_point.dtype)
    return (limits.min - int(zero_point)) * float(scale), (limits.max - int(zero_point)) * float(scale)


def constant(value: ir.Value | None) -> np.ndarray:
    """The value of a scale or a zero point."""
    if value is None or value.const_value is None:
        raise ValueError("a quantization without constant scale and zero point")
    return value.const_value.numpy()
