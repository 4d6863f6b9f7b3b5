"""The range whose 8-bit distribution tells least apart from what was seen, by Kullback-Leibler divergence.

Migacz, 8-bit Inference with TensorRT, GTC 2017: a threshold on absolute values is moved over the bins; what
lies outside is added to the last bin inside (P); the same bins without it, merged into as many as there are
integers and spread again over those that are not empty, are what quantization leaves (Q); the threshold with
the smallest KL(P‖Q) wins. Two things differ. The threshold cuts both ends of an affine range, each no further
than was seen, and the 256 integers divide what is left, rounded as the kernels do. And the bin of 0, which
ReLU fills and every encoding holds exactly, counts as much as its neighbours, as in NVIDIA's own calibrators,
because its peak would be spread and so call for ever smaller steps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import BINS, Histogram

_LEVELS = 256
# Of at most 2048 thresholds every fourth is tried: a range within 0.2 % of its histogram's span.
_STRIDE = 4

_Floats = NDArray[np.float64]
_Indices = NDArray[np.intp]


def choose(histogram: Histogram, recipe: Recipe) -> tuple[float, float]:  # noqa: ARG001
    """The best range; the full one where fewer bins are in use than there are integers."""
    width = 2.0 ** (histogram.exponent + 1) / BINS
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    largest = int(np.ceil(max(-low, high) / width))
    thresholds = np.arange(largest, 0, -_STRIDE) * width
    lows, highs = np.maximum(low, -thresholds), np.minimum(high, thresholds)
    wide = highs - lows >= _LEVELS * width
    if not wide.any():
        return low, high
    lows, highs = lows[wide], highs[wide]
    best = int(np.argmin(_divergences(_counts(histogram), lows / width, highs / width)))
    return float(lows[best]), float(highs[best])


def _counts(histogram: Histogram) -> _Floats:
    counts = histogram.counts.astype(np.float64)
    zero = BINS // 2
    counts[zero] = min(counts[zero], max(counts[zero - 1], counts[zero + 1]))
    return counts


def _divergences(counts: _Floats, lows: _Floats, highs: _Floats) -> _Floats:
    """KL(P‖Q) of every candidate, `[n]`; infinite where P has values that Q has not.

    Q is constant over the filled bins of a level, so that sums over bins are differences of cumulated sums.

    Args:
        counts: `[BINS]`.
        lows: Lower ends in bins from 0, `[n]`, from the widest range to the narrowest.
        highs: Upper ends.
    """
    edges = _edges(lows, highs)
    first, last = edges[:, 0], edges[:, -1] - 1
    below, above = _cumulated(counts)[first], counts.sum() - _cumulated(counts)[last + 1]
    masses = np.diff(_cumulated(counts)[edges], axis=1)  # of Q
    filled = np.diff(_cumulated(counts > 0)[edges], axis=1)
    filled[:, 0] += (counts[first] == 0) & (below > 0)
    filled[:, -1] += (counts[last] == 0) & (above > 0)
    clipped = masses.copy()  # of P
    clipped[:, 0] += below
    clipped[:, -1] += above
    inner = _cumulated(_x_log_x(counts))
    entropy = (
        inner[last] - inner[first + 1] + _x_log_x(counts[first] + below) + _x_log_x(counts[last] + above)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        cross = np.where(clipped > 0, clipped * np.log(masses / filled), 0.0).sum(axis=1)
        divergences: _Floats = (entropy - cross) / counts.sum() + np.log(masses.sum(axis=1) / counts.sum())
    return np.where(np.isfinite(divergences), divergences, np.inf)


def _edges(lows: _Floats, highs: _Floats) -> _Indices:
    """The bins at which levels begin, and the one behind the last, `[n, _LEVELS + 1]`."""
    steps = (highs - lows) / (_LEVELS - 1)
    halves = lows[:, None] + (np.arange(_LEVELS - 1) + 0.5) * steps[:, None]
    # What was seen last may lie on the edge of a bin, which it is counted in; a threshold ends before it.
    ends = np.where(highs == highs[0], np.floor(highs) + 1, highs)
    edges = np.column_stack([np.floor(lows), np.ceil(halves - 0.5), ends])
    return edges.astype(np.intp) + BINS // 2


def _cumulated(values: NDArray[np.generic]) -> _Floats:
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _x_log_x(values: _Floats) -> _Floats:
    return values * np.log(np.where(values > 0, values, 1.0))
