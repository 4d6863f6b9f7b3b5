"""Times of frames to rows, and the warnings that go with them."""

from __future__ import annotations

import pytest

from edgedet.bench.rows import Measured, benchmark_rows, median_interval, warnings_of
from edgedet.bench.stopwatch import Times
from edgedet.environment import Environment

MACHINE = Environment(cpu="a processor", cores=2, os="Linux", python="3.11", packages={})


def measured(
    runtime="ort", precision="fp32", threads=1, inference_ms=(8.0,), frames=100, **changes
) -> Measured:
    repeats = frames // len(inference_ms)
    times = Times([1.0] * frames, list(inference_ms) * repeats, [1.0] * frames, [3] * frames)
    fixed = {"model_bytes": 10, "load_ms": 1.0, "warm_up_frames": 5, "stable": True, "peak_rss_mb": 50.0}
    return Measured(runtime, precision, threads, **{"rounds": (times,), **fixed, **changes})


def test_a_row_is_the_statistics_of_its_frames():
    (row,) = benchmark_rows([measured(inference_ms=(8.0, 8.0, 8.0, 28.0))])
    assert (row.preprocess_ms, row.inference_ms, row.postprocess_ms) == (1, 8, 1)
    assert (row.total_ms.p50, row.total_ms.p99) == (10, 30)
    assert row.fps == pytest.approx(1000 / 15, abs=0.01)
    assert row.host_share == pytest.approx(2 / 15, abs=1e-4)


def test_speed_up_is_against_the_same_runtime_and_threads():
    rows = benchmark_rows(
        [
            measured(inference_ms=(8.0,)),
            measured(inference_ms=(18.0,), threads=2),
            measured(precision="int8", inference_ms=(3.0,)),
            measured(precision="int8", inference_ms=(3.0,), threads=2),
            measured(runtime="openvino", precision="int8"),
        ]
    )
    assert [row.speedup_vs_fp32 for row in rows] == [1, 1, 2, 4, None]


def test_a_slow_phase_that_hits_both_does_not_change_the_speed_up():
    def rounds(fast: float, slow: float) -> tuple[Times, ...]:
        return tuple(Times([0.0] * 50, [ms] * 50, [0.0] * 50, [1] * 50) for ms in (fast, slow, slow))

    rows = benchmark_rows(
        [measured(rounds=rounds(8.0, 80.0)), measured(precision="int8", rounds=rounds(4.0, 40.0))]
    )
    assert rows[1].speedup_vs_fp32 == 2


@pytest.mark.parametrize(
    ("count", "places"), [(5, None), (6, (0, 5)), (8, (0, 7)), (9, (1, 7)), (10, (1, 8)), (20, (5, 14))]
)
def test_the_interval_of_a_median_is_that_of_the_sign_test(count, places):
    values = [float(value) for value in reversed(range(count))]
    assert median_interval(values) == places


def test_a_speed_up_has_an_interval_from_six_rounds_on():
    def rounds(*inference_ms: float) -> tuple[Times, ...]:
        return tuple(Times([0.0] * 9, [ms] * 9, [0.0] * 9, [1] * 9) for ms in inference_ms)

    def interval(*inference_ms: float):
        floats = measured(rounds=rounds(*[8.0] * len(inference_ms)))
        return benchmark_rows([floats, measured(precision="int8", rounds=rounds(*inference_ms))])[1]

    assert interval(2, 4, 4, 4, 4, 16).speedup_interval == (0.5, 4)
    assert interval(2, 4, 4, 4, 16).speedup_interval is None


def warned(*rows: Measured, machine: Environment = MACHINE, load: float = 0.0) -> str:
    return "\n".join(warnings_of(benchmark_rows(rows), machine, load))


def test_int8_that_is_slower_than_float_is_said_plainly():
    text = warned(measured(), measured(precision="int8", inference_ms=(13.0,)))
    assert "ort int8 with 1 thread takes 1.50 times as long as its fp32" in text
    assert warned(measured(), measured(precision="int8", inference_ms=(4.0,))) == ""


@pytest.mark.parametrize(
    ("row", "machine", "load", "said"),
    [
        (measured(stable=False), MACHINE, 0.0, "not steady before measuring: ort fp32 with 1 thread"),
        (measured(frames=20), MACHINE, 0.0, "so few frames"),
        (measured(threads=4), MACHINE, 0.0, "more threads than 2 cores: ort fp32 with 4"),
        (measured(), MACHINE, 1.6, "a load of 1.6 on 2 cores before the first measurement"),
        (measured(), MACHINE.model_copy(update={"governor": "powersave"}), 0.0, "'powersave'"),
    ],
)
def test_what_makes_numbers_doubtful_is_said(row, machine, load, said):
    assert said in warned(row, machine=machine, load=load)


def test_images_without_objects_are_said():
    times = Times([1.0] * 100, [8.0] * 100, [1.0] * 100, [0] * 100)
    row = Measured("ort", "fp32", 1, 10, (times,), 1.0, 5, True, None)
    assert "no object found" in warned(row)
