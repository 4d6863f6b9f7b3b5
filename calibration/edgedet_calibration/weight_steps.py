"""How far the weights of a layer are moved from where they are nearest, in steps of their scale."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from edgedet.errors import BundleError


def packed(steps: Tensor) -> str:
    """Steps as text: int8, compressed, in base64. Most are 0, so they take a fraction of the weight."""
    return base64.b64encode(zlib.compress(steps.contiguous().numpy().tobytes(), 9)).decode("ascii")


def unpacked(text: str, shape: Sequence[int], name: str) -> Tensor:
    """The steps of a weight, int8.

    Args:
        text: Of `packed`.
        shape: That of the weight.
        name: Of its layer, for the message.

    Raises:
        BundleError: They are not the steps of a weight of that shape.
    """
    count = int(np.prod(shape))
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(text, validate=True), count + 1)  # never more than fits
    except (ValueError, zlib.error) as exc:
        raise misfit(name, count, str(exc)) from exc
    if len(data) != count:
        raise misfit(name, count, f"{len(data)} of them" if len(data) < count else "more than that")
    if not unpacker.eof or unpacker.unused_data:
        raise misfit(name, count, "a text that was cut or continued")
    return torch.frombuffer(bytearray(data), dtype=torch.int8).reshape(*shape)


def moved(weight: Tensor, scales: Tensor, steps: Tensor) -> Tensor:
    """The weight that rounding to nearest leaves as it is, float32, and whose scales are the same to the bit.

    Args:
        weight: `[o, i, h, w]`.
        scales: Of its rows, `[o]` or `[1]`, float64.
        steps: In the shape of the weight.
    """
    shape = (-1, *(1,) * (weight.ndim - 1))
    rows, given = scales.reshape(shape), weight.detach()
    integers = (given.double() / rows).round() + steps
    largest = given.abs().amax(tuple(range(1, given.ndim)), keepdim=True)
    largest = largest if len(scales) > 1 else largest.amax()
    # Where the scale comes from the largest weight, 127 steps are that weight, however the scale is rounded.
    is_largest = (integers.abs() == 127) & (largest.double() >= 126.5 * rows)
    return torch.where(is_largest, largest * integers.sign(), integers * rows).float()


def misfit(name: str, count: int, got: str) -> BundleError:
    """The refusal of steps that are not those of a layer."""
    return BundleError(
        f"the weight steps of the calibration do not fit {name}",
        got=got,
        expected=f"{count}, one for each weight",
        fix="calibrate again: export with --calibration DIR",
    )
