"""The terms of each target's integer kernels: in what type and with what zero point a range is written."""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Ranges narrower than this carry no signal; a smaller scale would only overflow in the kernels.
_SMALLEST_SCALE = 2.0**-30


@dataclass(frozen=True, slots=True)
class QuantParams:
    """Affine quantization of one tensor: real = (integer - zero_point) * scale."""

    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
class Encoding:
    """How activations are written; weights are int8, symmetric, -127..127, in all of them.

    Attributes:
        name: As recorded in `QuantizationSpec.encoding`.
        dtype: Type of activations.
        quant_min: Smallest integer.
        quant_max: Largest integer.
        symmetric: The zero point is 0.
        fuses_residuals: The kernels add a residual to a convolution's sum before they round.
    """

    name: str
    dtype: torch.dtype
    quant_min: int
    quant_max: int
    symmetric: bool
    fuses_residuals: bool

    def params(self, low: float, high: float) -> QuantParams:
        """Scale and zero point of a range, widened to hold 0, which padding and ReLU need exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        if self.symmetric:
            return QuantParams(max(max(-low, high) / self.quant_max, _SMALLEST_SCALE), 0)
        scale = max((high - low) / (self.quant_max - self.quant_min), _SMALLEST_SCALE)
        zero_point = round(self.quant_min - low / scale)
        return QuantParams(scale, min(max(zero_point, self.quant_min), self.quant_max))


# ONNX Runtime's x86 kernels are fastest with unsigned activations and signed weights; its sums read integers.
ONNX_RUNTIME = Encoding("onnxruntime", torch.uint8, 0, 255, symmetric=False, fuses_residuals=False)
# OpenVINO's CPU plugin takes the same types, and adds a residual inside the convolution before it. Quantizing
# between the two cost 6 dB of SNR against the reference, for the plugin does not execute it.
OPENVINO = Encoding("openvino", torch.uint8, 0, 255, symmetric=False, fuses_residuals=True)
# TensorRT's explicit quantization: signed, zero point 0, and the same fusion of residuals.
TENSORRT = Encoding("tensorrt", torch.int8, -128, 127, symmetric=True, fuses_residuals=True)
# TFLite's full-integer specification: signed affine activations.
TFLITE = Encoding("tflite", torch.int8, -128, 127, symmetric=False, fuses_residuals=False)

ENCODINGS = {encoding.name: encoding for encoding in (ONNX_RUNTIME, OPENVINO, TENSORRT, TFLITE)}
