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
    return base64.b64encode(zlib.compress(steps.contiguous().numpy().tobytes())).decode("ascii")


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
    """The weight on its grid, float32: rounding to nearest leaves it as it is.

    Args:
        weight: `[o, i, h, w]`.
        scales: Of its rows, `[o]` or `[1]`, float64 of float32 values.
        steps: In the shape of the weight.
    """
    rows = scales.reshape(-1, *(1,) * (weight.ndim - 1))
    return (((weight.detach().double() / rows).round() + steps) * rows).float()


def misfit(name: str, count: int, got: str) -> BundleError:
    """The refusal of steps that are not those of a layer."""
    return BundleError(
        f"the weight steps of the calibration do not fit {name}",
        got=got,
        expected=f"{count}, one for each weight",
        fix="calibrate again: export with --calibration DIR",
    )
