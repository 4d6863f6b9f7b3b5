from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedet_calibration.encodings import ENCODINGS, Encoding

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
        ends_of_integers = np.array([encoding.quant_min, encoding.quant_max]) - params.zero_point
        held = np.linspace(*ends_of_integers * params.scale, 101)
        error = np.abs(round_trip(encoding, params.scale, params.zero_point, held) - held)
        assert error.max() <= params.scale / 2 * (1 + 1e-6)


@given(ends, ends)
def test_the_symmetric_zero_point_is_zero(a: float, b: float) -> None:
    for name in ("tensorrt", "tflite-16x8"):
        assert ENCODINGS[name].params(min(a, b), max(a, b)).zero_point == 0


def test_encodings_that_compute_otherwise_have_corrections_of_their_own() -> None:
    arithmetics = [encoding.arithmetic for encoding in ENCODINGS.values()]
    assert ENCODINGS["tflite"].arithmetic == ENCODINGS["onnxruntime"].arithmetic
    assert len(set(arithmetics)) == len(arithmetics) - 1


@given(ends, ends, st.floats(1.01, 10))
def test_a_wider_range_never_gets_a_smaller_scale(a: float, b: float, factor: float) -> None:
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    for encoding in ENCODINGS.values():
        assert encoding.params(low * factor, high * factor).scale >= encoding.params(low, high).scale
