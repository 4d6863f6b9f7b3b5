"""The range of everything that was seen."""

from __future__ import annotations

from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import Histogram


def choose(histogram: Histogram, recipe: Recipe) -> tuple[float, float]:  # noqa: ARG001
    """Smallest and largest value."""
    return histogram.low, histogram.high
