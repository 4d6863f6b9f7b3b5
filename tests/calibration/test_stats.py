from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedet.errors import BundleError
from edgedet_calibration.stats import BINS, Histogram, Stats, TensorStats

floats = st.floats(-1e4, 1e4, width=32)


def counted(parts: list[list[float]]) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(torch.tensor(part, dtype=torch.float32))
    return histogram


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(floats, min_size=1, max_size=20), min_size=1, max_size=6), st.randoms())
def test_a_histogram_does_not_depend_on_order_or_batching(parts: list[list[float]], random) -> None:
    together = counted([[value for part in parts for value in part]])
    shuffled = [list(part) for part in parts]
    random.shuffle(shuffled)
    for part in shuffled:
        random.shuffle(part)
    apart = counted(shuffled)
    assert (apart.low, apart.high, apart.exponent) == (together.low, together.high, together.exponent)
    np.testing.assert_array_equal(apart.counts, together.counts)


@settings(max_examples=60, deadline=None)
@given(st.lists(floats, min_size=1, max_size=50), st.lists(floats, min_size=1, max_size=50))
def test_merging_two_histograms_equals_counting_everything_once(a: list[float], b: list[float]) -> None:
    merged, once = counted([a]).merged(counted([b])), counted([a, b])
    assert (merged.low, merged.high, merged.exponent) == (once.low, once.high, once.exponent)
    np.testing.assert_array_equal(merged.counts, once.counts)


@settings(max_examples=30, deadline=None)
@given(st.lists(floats, min_size=1, max_size=50))
def test_every_value_is_counted_once_and_survives_the_file(values: list[float]) -> None:
    histogram = counted([values])
    assert histogram.counts.sum() == len(values)
    stored = TensorStats.model_validate_json(TensorStats.of(histogram).model_dump_json())
    np.testing.assert_array_equal(stored.histogram().counts, histogram.counts)
    assert len(stored.counts) <= BINS


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        Histogram().add(torch.tensor([1.0, float("nan")]))


def test_statistics_of_another_checkpoint_preprocessing_or_graph_are_refused_by_name(stats: Stats) -> None:
    names = list(stats.tensors)
    stats.check_fits(stats.checkpoint_sha256, stats.input, names)
    with pytest.raises(BundleError, match="its checkpoint is not"):
        stats.check_fits("0" * 64, stats.input, names)
    other = stats.input.model_copy(update={"colour": "bgr"})
    with pytest.raises(BundleError, match=r"its preprocessing \(colour\) is not .+; got rgb; expected bgr"):
        stats.check_fits(stats.checkpoint_sha256, other, names)
    with pytest.raises(BundleError, match="without conv_of_another_net"):
        stats.check_fits(stats.checkpoint_sha256, stats.input, ["conv_of_another_net"])


def test_a_calibration_file_that_is_damaged_is_refused(stats: Stats) -> None:
    text = stats.model_dump_json().encode()
    assert Stats.from_json(text, source="here") == stats
    with pytest.raises(BundleError, match="cannot read the calibration in here"):
        Stats.from_json(text[: len(text) // 2], source="here")


def test_a_calibration_file_of_an_earlier_version_still_loads(stats: Stats) -> None:
    old = stats.model_dump(mode="json", exclude={"coverage", "correction_origin"})
    for tensor in old["tensors"].values():
        for name in ("images", "low_sum", "high_sum"):
            del tensor[name]
    loaded = Stats.from_json(json.dumps(old).encode(), source="here")
    assert (loaded.coverage, loaded.correction_origin) == (None, None)
    assert all(tensor.images == 0 for tensor in loaded.tensors.values())
    assert loaded.model_dump(exclude={"coverage", "tensors"}) == stats.model_dump(
        exclude={"coverage", "tensors"}
    )
