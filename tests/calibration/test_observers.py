"""Ranges are chosen from what was seen, the same whatever the order in which it was seen."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedet import registry
from edgedet.errors import BundleError
from edgedet_calibration.encodings import ENCODINGS
from edgedet_calibration.placement import Placement
from edgedet_calibration.quantize import quant_params
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import BINS, Histogram, Stats, TensorStats

OBSERVERS = list(registry.OBSERVERS)
floats = st.floats(-1e4, 1e4, width=32)
# One row an image; the integer makes the rows as long as each other, as tensors of one graph are.
images_of_values = st.integers(1, 12).flatmap(
    lambda size: st.lists(st.lists(floats, min_size=size, max_size=size), min_size=1, max_size=8)
)


def choose(name: str, histogram: Histogram, recipe: Recipe | None = None) -> tuple[float, float]:
    low, high = registry.OBSERVERS.load(name)(histogram, recipe or Recipe())
    return float(low), float(high)


def seen(batches: list[list[list[float]]]) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(torch.tensor(batch, dtype=torch.float32))
    return histogram


@settings(max_examples=25, deadline=None)
@given(images_of_values, st.randoms(use_true_random=False))
def test_any_order_and_batching_of_images_stores_the_same_bits_and_chooses_the_same_range(
    images: list[list[float]], chance: random.Random
) -> None:
    together = seen([images])
    shuffled = chance.sample(images, len(images))
    batches: list[list[list[float]]] = [[]]
    for image in shuffled:
        batches[-1].append(image)
        if chance.random() < 0.5 and image is not shuffled[-1]:
            batches.append([])
    apart = seen([batch for batch in batches if batch])
    assert TensorStats.of(apart).model_dump_json() == TensorStats.of(together).model_dump_json()
    for name in OBSERVERS:
        assert choose(name, apart) == choose(name, together)


@settings(max_examples=25, deadline=None)
@given(images_of_values)
def test_a_range_lies_within_what_was_seen_and_survives_the_file(images: list[list[float]]) -> None:
    histogram = seen([images])
    stored = TensorStats.model_validate_json(TensorStats.of(histogram).model_dump_json()).histogram()
    low_end, high_end = min(histogram.low, 0.0), max(histogram.high, 0.0)
    for name in OBSERVERS:
        low, high = choose(name, histogram)
        assert low_end <= low <= high <= high_end, name
        assert choose(name, stored) == (low, high)


@settings(max_examples=25, deadline=None)
@given(images_of_values, st.lists(floats, min_size=1, max_size=5))
def test_wider_data_never_narrow_the_range_of_minmax_and_average(
    images: list[list[float]], more: list[float]
) -> None:
    narrow, wide = seen([images]), seen([[image + more for image in images]])
    for name in ("average", "minmax"):
        (low, high), (wider_low, wider_high) = choose(name, narrow), choose(name, wide)
        assert wider_low <= low <= high <= wider_high


@settings(max_examples=25, deadline=None)
@given(images_of_values)
def test_the_average_is_the_mean_of_the_extremes_of_images(images: list[list[float]]) -> None:
    low, high = choose("average", seen([images]))
    assert low == pytest.approx(np.mean([min(image) for image in images]), rel=1e-9, abs=1e-9)
    assert high == pytest.approx(np.mean([max(image) for image in images]), rel=1e-9, abs=1e-9)


def test_the_average_of_tensors_that_share_a_range_is_that_of_the_widest() -> None:
    gate, sums = seen([[[0.0, 1.0], [0.0, 0.5]]]), seen([[[-4.0, 8.0]], [[-2.0, 6.0]]])
    assert choose("average", gate.merged(sums)) == choose("average", sums.merged(gate)) == (-3.0, 7.0)


def test_the_average_of_a_file_without_the_extremes_of_images_is_refused() -> None:
    old = TensorStats(low=-1, high=1, exponent=1, first_bin=BINS // 2, counts=(3,))
    with pytest.raises(BundleError, match=r"observer average; got .+; expected .+ Fix: calibrate again"):
        choose("average", old.histogram())


@pytest.mark.parametrize("name", OBSERVERS)
def test_an_outlier_in_one_image_sets_the_range_of_minmax_alone(name: str) -> None:
    values = torch.randn(400, 1000, generator=torch.Generator().manual_seed(1))
    values[7, 0] = 40.0
    histogram = Histogram()
    histogram.add(values)
    low, high = choose(name, histogram, Recipe(percentile=99.9))
    assert histogram.low <= low < 0 < high <= histogram.high
    if name == "minmax":
        assert (low, high) == (histogram.low, histogram.high)
    else:
        assert 2 < high < 30


def test_the_percentile_observer_leaves_out_the_share_it_was_told_to() -> None:
    histogram = Histogram()
    histogram.add(torch.linspace(-1, 1, 100_001))
    low, high = choose("percentile", histogram, Recipe(percentile=90.0))
    assert low == pytest.approx(-0.9, abs=1e-3)
    assert high == pytest.approx(0.9, abs=1e-3)


def divergence(histogram: Histogram, low: float, high: float) -> float:
    """KL(P‖Q) of one range, bin by bin and level by level as the paper states it."""
    counts, centres = histogram.counts.astype(float), histogram.centres()
    zero = BINS // 2
    counts[zero] = min(counts[zero], max(counts[zero - 1], counts[zero + 1]))
    half = (centres[1] - centres[0]) / 2
    inside = np.flatnonzero((centres > low - half) & (centres < high + half))
    kept = counts[inside]
    reference = kept.copy()
    reference[0] += counts[: inside[0]].sum()
    reference[-1] += counts[inside[-1] + 1 :].sum()
    levels = np.rint((centres[inside] - low) / ((high - low) / 255))
    spread = np.zeros_like(kept)
    for level in np.unique(levels):
        filled = (levels == level) & (reference > 0)
        spread[filled] = kept[levels == level].sum() / max(filled.sum(), 1)
    used = reference > 0
    if not spread[used].all():
        return float("inf")
    p, q = reference[used] / reference.sum(), spread[used] / spread.sum()
    return float((p * np.log(p / q)).sum())


@pytest.mark.parametrize("shape", ["normal", "relu6", "skewed", "negative"])
def test_no_threshold_has_a_smaller_divergence_than_that_of_the_entropy_observer(shape: str) -> None:
    values = torch.randn(1, 60_000, generator=torch.Generator().manual_seed(2))
    values = {
        "normal": values,
        "relu6": (3 * values).clamp(0, 6),
        "skewed": values.exp() - 1,
        "negative": -(values.abs() ** 1.5),
    }[shape]
    histogram = Histogram()
    histogram.add(values)
    low, high = choose("entropy", histogram)
    least = divergence(histogram, low, high)
    assert np.isfinite(least)
    width = 2.0 ** (histogram.exponent + 1) / BINS
    largest = max(-histogram.low, histogram.high)
    for threshold in width * np.arange(128, largest / width, 16):
        other = max(histogram.low, -threshold), min(histogram.high, threshold)
        if other[1] - other[0] >= 256 * width:
            # Whether a bin whose middle is half a step belongs to one level or the next is left to rounding.
            assert divergence(histogram, *other) >= least - 1e-4


@pytest.mark.parametrize("observer", OBSERVERS)
def test_tensors_that_share_a_range_get_the_same_scale_and_zero_point(
    observer: str, placement: Placement, stats: Stats
) -> None:
    shared = [name for name, group in placement.ranges.items() if name != group]
    assert shared, "the predictors of one output share a range"
    for encoding in ENCODINGS.values():
        params = quant_params(placement, stats, Recipe(observer=observer), encoding)
        assert all(params[name] == params[placement.ranges[name]] for name in shared)
