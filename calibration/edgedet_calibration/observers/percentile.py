"""The range that leaves out equal shares of the values at both ends."""

from __future__ import annotations

import numpy as np

from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import Histogram


def choose(histogram: Histogram, recipe: Recipe) -> tuple[float, float]:
    """The range that holds `recipe.percentile` percent of the values, up to the width of a bin."""
    total = histogram.counts.sum()
    tail = total * (100 - recipe.percentile) / 200
    cumulated = np.cumsum(histogram.counts)
    centres = histogram.centres()
    low = centres[int(np.searchsorted(cumulated, tail, side="right"))]
    high = centres[int(np.searchsorted(cumulated, total - tail, side="left"))]
    low, high = np.clip([low, high], histogram.low, histogram.high)
    return float(low), float(high)
