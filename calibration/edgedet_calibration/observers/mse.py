"""The range with the smallest squared error of 8-bit quantization, rounding and clipping together."""

from __future__ import annotations

import numpy as np

from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import Histogram

_SHRINK = np.linspace(1.0, 0.3, 71)


def choose(histogram: Histogram, recipe: Recipe) -> tuple[float, float]:  # noqa: ARG001
    """The best of 71 ranges from the full one down to 30 % of it, both ends shrunk alike."""
    used = histogram.counts > 0
    values, counts = histogram.centres()[used], histogram.counts[used]
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    errors = [_squared_error(values, counts, low * factor, high * factor) for factor in _SHRINK]
    factor = float(_SHRINK[int(np.argmin(errors))])
    return low * factor, high * factor


def _squared_error(values: np.ndarray, counts: np.ndarray, low: float, high: float) -> float:
    scale = (high - low) / 255 or 1.0
    restored = np.round((np.clip(values, low, high) - low) / scale) * scale + low
    return float(np.sum(counts * (values - restored) ** 2))
