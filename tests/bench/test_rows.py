"""Times of frames to rows, and the warnings that go with them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from measurements import measured, turn

from edgedet.bench.cautions import fallback_failures, unknown_coverage, warnings_of
from edgedet.bench.condition import Condition
from edgedet.bench.coverage import Coverage
from edgedet.bench.rows import Measured, benchmark_rows, noise_of
from edgedet.environment import Environment

MACHINE = Environment(cpu="a processor", cores=2, os="Linux", python="3.11", packages={})


def test_a_row_is_the_statistics_of_its_frames():
    (row,) = benchmark_rows([measured(inference_ms=(8.0, 8.0, 8.0, 28.0))])
    assert (row.preprocess_ms, row.inference_ms, row.postprocess_ms) == (1, 8, 1)
    assert (row.total_ms.p50, row.total_ms.p99) == (10, 30)
    assert row.fps == pytest.approx(1000 / 15, abs=0.01)
    assert row.host_share == pytest.approx(2 / 15, abs=1e-4)


def test_speed_up_is_against_the_same_runtime_and_threads():
    def two(ms: float, **changes) -> Measured:
        return measured(turns=[turn([ms])] * 2, **changes)

    rows = benchmark_rows(
        [
            two(10.0),
            two(20.0, threads=2),
            two(5.0, precision="int8"),
            two(5.0, precision="int8", threads=2),
            two(5.0, runtime="openvino", precision="int8"),
        ]
    )
    assert [row.speedup_vs_fp32 for row in rows] == [1, 1, 2, 4, None]


def test_a_batch_is_timed_as_a_whole_and_counted_by_its_images():
    (row,) = benchmark_rows(
        [measured(inference_ms=(38.0,), frames=50, batch=4, turns=[turn([38.0] * 25, 2.0)] * 12)]
    )
    assert (row.batch, row.total_ms.p50, row.frames, row.fps) == (4, 40, 4 * 25 * 12, 100)
    assert row.detections_per_frame == 0.75, "three objects in the four images of a batch"
    assert row.p50_interval == (40, 40)
    assert "so few inferences" not in warned(measured(batch=4, turns=[turn([38.0] * 50)] * 2))
    assert "ort fp32 batch 4 with 1 thread" in warned(measured(batch=4, turns=[turn([38.0] * 49)] * 2))


def test_the_gain_of_a_batch_is_against_one_image_of_the_same_runtime_precision_and_threads():
    def blocks(ms: float, **changes) -> Measured:
        return measured(turns=[turn([ms])] * 12, **changes)

    rows = benchmark_rows(
        [
            blocks(10.0),
            blocks(15.0, batch=2),
            blocks(4.0, precision="int8"),
            blocks(8.0, precision="int8", batch=2),
            blocks(6.0, precision="int8", batch=2, threads=2),
            blocks(15.0, batch=2, alone=True),
        ]
    )
    assert [row.gain_over_batch_1 for row in rows] == [None, 1.333, None, 1, None, None]
    assert rows[1].gain_interval == (1.333, 1.333)
    assert [row.speedup_vs_fp32 for row in rows] == [1, 1, 2.5, 1.875, None, None]


def test_a_slow_phase_that_hits_both_does_not_change_the_speed_up():
    def turns(fast: float, slow: float):
        return [turn([ms] * 50) for ms in (fast, slow, slow, slow)]

    rows = benchmark_rows(
        [measured(turns=turns(8.0, 80.0)), measured(precision="int8", turns=turns(4.0, 40.0))]
    )
    assert rows[1].speedup_vs_fp32 == 2


def test_what_ran_alone_has_no_speed_up_because_nothing_ran_beside_it():
    turns = [turn([8.0])] * 4
    alone = [measured(turns=turns, alone=True), measured(precision="int8", turns=turns, alone=True)]
    assert [row.speedup_vs_fp32 for row in benchmark_rows(alone)] == [None, None]


def test_a_speed_up_has_an_interval_from_six_blocks_of_turns_on():
    def row(*inference_ms: float):
        floats = measured(turns=[turn([8.0])] * 2 * len(inference_ms))
        integers = [turn([ms]) for ms in inference_ms for _ in range(2)]
        return benchmark_rows([floats, measured(precision="int8", turns=integers)])[1]

    low, high = row(2, 4, 4, 4, 4, 16).speedup_interval
    assert (low, high) == (0.5, 4)
    assert row(2, 4, 4, 4, 16).speedup_interval is None
    assert row(2, 4, 4, 4, 16).speedup_vs_fp32 == 2


def test_the_noise_floor_reaches_as_far_as_the_interval_of_the_same_artifact_twice():
    one = measured(turns=[turn([10.0])] * 24)
    again = measured(turns=[turn([ms]) for ms in (10.0, 10.0, 10.2, 10.2, 9.9, 9.9) * 4])
    noise = noise_of(one, again)
    assert noise.ratio.low <= noise.ratio.ratio <= noise.ratio.high
    assert noise.floor == pytest.approx(max(1 - noise.ratio.low, noise.ratio.high - 1), abs=1e-3)
    assert 0 < noise.floor < 0.03
    assert f"differences below {100 * noise.floor:.1f} % mean nothing" in str(noise)


def test_the_same_artifact_that_is_not_equally_fast_twice_is_a_warning():
    noise = noise_of(measured(turns=[turn([10.0])] * 24), measured(turns=[turn([11.0])] * 24))
    assert "is not equally fast" in "\n".join(warnings_of((), MACHINE, 0.0, noise))


def test_a_speed_up_within_the_noise_is_said():
    noise = noise_of(
        measured(turns=[turn([10.0])] * 12), measured(turns=[turn([ms]) for ms in (10, 10, 9.5, 9.5) * 3])
    )
    turns = [turn([10.0])] * 12
    rows = benchmark_rows([measured(turns=turns), measured(precision="int8", turns=[turn([9.9])] * 12)])
    said = "\n".join(warnings_of(rows, MACHINE, 0.0, noise))
    assert "beyond the noise: ort int8 with 1 thread" in said
    rows = benchmark_rows([measured(turns=turns), measured(precision="int8", turns=[turn([5.0])] * 12)])
    assert "beyond the noise" not in "\n".join(warnings_of(rows, MACHINE, 0.0, noise))


def test_the_series_of_hours_has_240_slices_at_most_and_ends_with_the_last_turn():
    turns = [turn([float(index)] * 3) for index in range(1, 1001)]
    (row,) = benchmark_rows([measured(turns=turns)])
    assert len(row.series) == 240
    assert row.series[-1].t_s == 1000
    assert [moment.p50_ms for moment in row.series] == sorted(moment.p50_ms for moment in row.series)
    assert row.series[0].p50_ms < 5 < 995 < row.series[-1].p50_ms


def test_a_sustained_row_compares_the_first_minute_with_the_last():
    turns = [turn([10.0 if second < 90 else 15.0] * 10) for second in range(180)]
    (row,) = benchmark_rows([measured(turns=turns, alone=True)])
    kept = row.sustained
    assert (kept.window_s, kept.first_p50_ms, kept.last_p50_ms) == (60, 10, 15)
    assert (kept.ratio, kept.first_fps) == (1.5, 100)
    assert kept.last_fps == pytest.approx(1000 / 15, abs=0.01)
    assert "too short" not in warned(measured(turns=turns, alone=True))


def test_a_sustained_row_of_less_than_two_minutes_compares_its_halves_and_says_so():
    short = measured(turns=[turn([10.0])] * 5 + [turn([20.0])] * 5, alone=True)
    (row,) = benchmark_rows([short])
    assert (row.sustained.window_s, row.sustained.ratio) == (5, 2)
    assert "too short for a sustained measurement: its first 5 s" in warned(short)


def test_energy_is_that_of_the_turns_over_their_frames_and_unknown_where_one_is():
    known = [turn([8.0] * 10, joules=2.0, energy_source="rapl")] * 3
    (row,) = benchmark_rows([measured(turns=known)])
    assert (row.joules_per_frame, row.energy_source) == (0.2, "rapl")
    (row,) = benchmark_rows([measured(turns=[*known, turn([8.0] * 10)])])
    assert (row.joules_per_frame, row.energy_source) == (None, "")


def test_a_clock_that_fell_by_more_than_a_tenth_is_a_warning():
    def at(*clocks: float) -> Measured:
        return measured(
            turns=[turn([8.0] * 50, condition=Condition(mhz=(c, c))) for c in (*clocks, clocks[-1])]
        )

    assert "the clock fell from 3000 to 2500 MHz while ort fp32 with 1 thread" in warned(at(3000, 2800, 2500))
    assert "clock" not in warned(at(3000, 2800))
    assert "clock" not in warned(measured())


@pytest.mark.parametrize(
    ("field", "said"),
    [("throttle_events", "slowed for its heat 3 times"), ("cgroup_throttled", "was stopped 3 times")],
)
def test_a_throttle_counter_that_rose_is_a_warning(field, said):
    def between(first: int | None, last: int | None) -> str:
        ends = [Condition.model_validate({field: count}) for count in (first, last)]
        turns = [turn([8.0] * 50, condition=ends[1])] * 2
        return warned(measured(turns=turns, before=ends[0]))

    assert said in between(4, 7)
    assert between(4, 4) == between(None, None) == ""


def test_a_fallback_is_said_with_its_reason():
    coverage = Coverage(verdict="fallback", reason="all of it ran in float")
    rows = benchmark_rows([measured(precision="int8", coverage=coverage), measured()])
    assert fallback_failures(rows) == ("ort int8 fell back: all of it ran in float",)


def test_what_could_not_be_read_is_said_once_with_its_cause():
    one = measured(precision="int8", coverage=Coverage(verdict="unknown", reason="no profile"))
    fine = measured("openvino", "int8", coverage=Coverage(verdict="intended"))
    rows = benchmark_rows([one, replace(one, threads=2), fine, measured()])
    assert unknown_coverage(rows) == ("whether ort int8 ran on integers is not known: no profile",)
    assert fallback_failures(rows) == ()


def warned(*rows: Measured, machine: Environment = MACHINE, load: float = 0.0) -> str:
    return "\n".join(warnings_of(benchmark_rows(rows), machine, load))


def test_int8_that_is_slower_than_float_is_said_plainly():
    def beside_fp32(ms: float) -> str:
        return warned(
            *(measured(precision=p, turns=[turn([t] * 50)] * 2) for p, t in (("fp32", 10), ("int8", ms)))
        )

    assert "ort int8 with 1 thread takes 1.50 times as long as its fp32" in beside_fp32(15.0)
    assert beside_fp32(5.0) == ""


@pytest.mark.parametrize(
    ("row", "machine", "load", "said"),
    [
        (measured(stable=False), MACHINE, 0.0, "not steady before measuring: ort fp32 with 1 thread"),
        (measured(frames=20), MACHINE, 0.0, "so few inferences"),
        (measured(threads=4), MACHINE, 0.0, "more threads than 2 cores: ort fp32 with 4"),
        (measured(), MACHINE, 1.6, "a load of 1.6 on 2 cores before the first measurement"),
        (measured(), MACHINE.model_copy(update={"governor": "powersave"}), 0.0, "'powersave'"),
    ],
)
def test_what_makes_numbers_doubtful_is_said(row, machine, load, said):
    assert said in warned(row, machine=machine, load=load)


def test_images_without_objects_are_said():
    assert "no object found" in warned(measured(turns=[turn([8.0] * 50, objects=0)] * 2))
