from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedet import registry
from edgedet_calibration.encodings import ENCODINGS, Encoding
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import Histogram

ends = st.floats(-1e4, 1e4, allow_nan=False)


@pytest.fixture(params=list(ENCODINGS.values()), ids=list(ENCODINGS))
def encoding(request: pytest.FixtureRequest) -> Encoding:
    return request.param


def round_trip(encoding: Encoding, scale: float, zero_point: int, values: np.ndarray) -> np.ndarray:
    integers = np.clip(np.rint(values / scale) + zero_point, encoding.quant_min, encoding.quant_max)
    return (integers - zero_point) * scale


@given(ends, ends)
def test_every_encoding_holds_zero_exactly_and_its_range_within_half_a_step(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    for encoding in ENCODINGS.values():
        params = encoding.params(low, high)
        assert params.scale > 0
        assert encoding.quant_min <= params.zero_point <= encoding.quant_max
        assert round_trip(encoding, params.scale, params.zero_point, np.zeros(1))[0] == 0
        inside = np.linspace(min(low, 0), max(high, 0), 101)
        error = np.abs(round_trip(encoding, params.scale, params.zero_point, inside) - inside)
        # Half a step of rounding, and at the ends half a step more because the zero point is an integer.
        assert error.max() <= params.scale * (1 + 1e-6)
        assert np.median(error) <= params.scale / 2 * (1 + 1e-6)


@given(ends, ends)
def test_the_symmetric_zero_point_is_zero(a: float, b: float) -> None:
    for name in ("tensorrt", "tflite-16x8"):
        assert ENCODINGS[name].params(min(a, b), max(a, b)).zero_point == 0


def test_encodings_that_compute_otherwise_have_bias_shifts_of_their_own() -> None:
    arithmetics = [encoding.arithmetic for encoding in ENCODINGS.values()]
    assert ENCODINGS["tflite"].arithmetic == ENCODINGS["onnxruntime"].arithmetic
    assert len(set(arithmetics)) == len(arithmetics) - 1


@given(ends, ends, st.floats(1.01, 10))
def test_a_wider_range_never_gets_a_smaller_scale(a: float, b: float, factor: float) -> None:
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    for encoding in ENCODINGS.values():
        assert encoding.params(low * factor, high * factor).scale >= encoding.params(low, high).scale


@pytest.mark.parametrize("name", list(registry.OBSERVERS))
def test_an_observer_chooses_a_range_inside_what_was_seen(name: str) -> None:
    import torch

    values = torch.randn(400_000, generator=torch.Generator().manual_seed(1))
    values[0] = 40.0  # an outlier
    histogram = Histogram()
    histogram.add(values)
    low, high = registry.OBSERVERS.load(name)(histogram, Recipe(percentile=99.9))
    assert histogram.low <= low < 0 < high <= histogram.high
    if name == "minmax":
        assert (low, high) == (histogram.low, histogram.high)
    else:
        assert high < 30  # the outlier does not set the range


def test_the_percentile_observer_leaves_out_the_share_it_was_told_to() -> None:
    import torch

    values = torch.linspace(-1, 1, 100_001)
    histogram = Histogram()
    histogram.add(values)
    low, high = registry.OBSERVERS.load("percentile")(histogram, Recipe(percentile=90.0))
    assert low == pytest.approx(-0.9, abs=1e-3)
    assert high == pytest.approx(0.9, abs=1e-3)
