"""The terms of each target's integer kernels: in what type and with what zero point a range is written."""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Ranges narrower than 255 of these carry no signal. A smaller scale would leave no room for biases, which are
# int32 in steps of input scale x weight scale.
_SMALLEST_SCALE = 2.0**-16


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
        fuses_epilogues: The kernels add a residual to a convolution's sum, and compute any activation of it,
            before they round.
        pair_safe: Weights have scales at which no sum of two products overflows on x86 without VNNI.
    """

    name: str
    dtype: torch.dtype
    quant_min: int
    quant_max: int
    symmetric: bool
    fuses_epilogues: bool
    pair_safe: bool = False

    @property
    def arithmetic(self) -> str:
        """A name for what decides the results of a quantized graph: encodings that share it agree."""
        placement = "fused" if self.fuses_epilogues else "lowered"
        width = "" if self.quant_max < 2**8 else "16-bit "
        return f"{width}{'symmetric' if self.symmetric else 'affine'} {placement}"

    @property
    def integer_biases(self) -> bool:
        """Whether the kernels add biases as integers: TensorRT's add floats."""
        return self.name != "tensorrt"

    def params(self, low: float, high: float) -> QuantParams:
        """Scale and zero point of a range, widened to hold 0, which padding and ReLU need exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        if self.symmetric:
            return QuantParams(max(max(-low, high) / self.quant_max, _SMALLEST_SCALE), 0)
        scale = max((high - low) / (self.quant_max - self.quant_min), _SMALLEST_SCALE)
        zero_point = round(self.quant_min - low / scale)
        return QuantParams(scale, min(max(zero_point, self.quant_min), self.quant_max))


# ONNX Runtime's x86 kernels are fastest with unsigned activations and signed weights; its sums read integers.
ONNX_RUNTIME = Encoding(
    "onnxruntime", torch.uint8, 0, 255, symmetric=False, fuses_epilogues=False, pair_safe=True
)
# OpenVINO's CPU plugin takes the same types, and computes a residual addition, hard-swish and their like
# inside the convolution before them. Quantizing in between cost 6 dB of SNR against the reference, for the
# plugin does not execute it.
OPENVINO = Encoding("openvino", torch.uint8, 0, 255, symmetric=False, fuses_epilogues=True, pair_safe=True)
# TensorRT's explicit quantization: signed, zero point 0, and the same fusions.
TENSORRT = Encoding("tensorrt", torch.int8, -128, 127, symmetric=True, fuses_epilogues=True)
# TFLite's full-integer specification: signed affine activations. LiteRT's kernels overflow nowhere; its
# weights are ONNX Runtime's, so that both are corrected and compared with one reference.
TFLITE = Encoding("tflite", torch.int8, -128, 127, symmetric=False, fuses_epilogues=False, pair_safe=True)
# TFLite's 16x8 specification: int16 activations with zero point 0, 64-bit sums and biases.
TFLITE_16X8 = Encoding("tflite-16x8", torch.int16, -32767, 32767, symmetric=True, fuses_epilogues=False)

ENCODINGS = {encoding.name: encoding for encoding in (ONNX_RUNTIME, OPENVINO, TENSORRT, TFLITE, TFLITE_16X8)}
