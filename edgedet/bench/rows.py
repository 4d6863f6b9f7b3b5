"""Turns of frames to the rows of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgedet.bench.condition import Condition
from edgedet.bench.coverage import Coverage
from edgedet.bench.ratio import Ratio, paired_ratio, typical_interval
from edgedet.bench.report import BenchmarkRow, ColdStart, Moment, Noise, Percentiles, Sustained
from edgedet.bench.stopwatch import Times
from edgedet.bench.workers import Turn
from edgedet.executed import ExecutedGraph
from edgedet.spec import Precision

# So that a report of hours stays small, and a curve of it fits on a telephone.
_MOST_MOMENTS = 240

_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What one worker measured, turn by turn; other fields are those of `BenchmarkRow`.

    Attributes:
        turns: In order of time, two a block where workers took turns.
        ends_s: When each ended, in seconds since the first of all, or since its own first if alone.
        alone: Whether it ran by itself, so that its turns cannot be paired with others.
        processes: How many took the turns, one after another.
    """

    runtime: str
    precision: Precision
    threads: int
    model_bytes: int
    turns: tuple[Turn, ...]
    ends_s: tuple[float, ...]
    load_ms: float
    warm_up_frames: int
    stable: bool
    peak_rss_mb: float | None
    executed: ExecutedGraph | None = None
    coverage: Coverage | None = None
    cold_start: ColdStart | None = None
    model_sha256: str = ""
    before: Condition | None = None
    alone: bool = False
    processes: int = 1
    batch: int = 1


def benchmark_rows(measured: Sequence[Measured]) -> tuple[BenchmarkRow, ...]:
    """One row each, in the order given."""
    floats = {(one.runtime, one.threads, one.batch): one for one in measured if one.precision == "fp32"}
    singles = {(one.runtime, one.threads, one.precision): one for one in measured if one.batch == 1}
    return tuple(
        _row(
            one,
            floats.get((one.runtime, one.threads, one.batch)),
            singles.get((one.runtime, one.threads, one.precision)) if one.batch > 1 else None,
        )
        for one in measured
    )


def noise_of(one: Measured, again: Measured) -> Noise:
    """What the same artifact in two processes differs by, in turns that both took."""
    ratio = _time_ratio(one, again)
    reached = [abs(end - 1) for end in (ratio.low, ratio.ratio, ratio.high) if end is not None]
    return Noise(
        runtime=one.runtime,
        precision=one.precision,
        threads=one.threads,
        batch=one.batch,
        ratio=ratio,
        floor=round(max(reached), 4),
    )


def _row(one: Measured, reference: Measured | None, single: Measured | None) -> BenchmarkRow:
    times = _joined(one.turns)
    total = np.array(times.total_ms)
    p50, p90, p99 = (round(float(value), 4) for value in np.percentile(total, (50, 90, 99)))
    speedup = None if reference is None or one.alone else _time_ratio(reference, one)
    gain = None if single is None or one.alone else _time_ratio(single, one)
    frames = one.batch * len(total)
    host_ms = sum(times.preprocess_ms) + sum(times.postprocess_ms)
    joules, source = _energy(one.turns)
    return BenchmarkRow(
        runtime=one.runtime,
        precision=one.precision,
        threads=one.threads,
        batch=one.batch,
        frames=frames,
        preprocess_ms=_median(times.preprocess_ms),
        inference_ms=_median(times.inference_ms),
        postprocess_ms=_median(times.postprocess_ms),
        total_ms=Percentiles(p50=p50, p90=p90, p99=p99),
        fps=round(1000 * one.batch / float(total.mean()), 2),
        host_share=round(host_ms / float(total.sum()), 4),
        detections_per_frame=round(sum(times.detections) / frames, 2),
        load_ms=round(one.load_ms, 1),
        warm_up_frames=one.warm_up_frames,
        stable=one.stable,
        peak_rss_mb=None if one.peak_rss_mb is None else round(one.peak_rss_mb, 1),
        model_bytes=one.model_bytes,
        speedup_vs_fp32=None if speedup is None else round(speedup.ratio, 3),
        speedup_interval=None if speedup is None or reference is one else _interval(speedup),
        gain_over_batch_1=None if gain is None else round(gain.ratio, 3),
        gain_interval=None if gain is None else _interval(gain),
        p50_interval=typical_interval([one.batch * ms for ms in _medians(one)], one.processes),
        processes=one.processes,
        integer_share=None if one.executed is None else one.executed.integer_share,
        coverage=one.coverage,
        model_sha256=one.model_sha256,
        measured_s=round(sum(turn.seconds for turn in one.turns), 2),
        series=_series(one),
        sustained=_sustained(one) if one.alone else None,
        cold_start=one.cold_start,
        before=one.before,
        after=one.turns[-1].condition,
        joules_per_frame=None if joules is None else round(joules / frames, 6),
        energy_source=source,
    )


def _time_ratio(one: Measured, other: Measured) -> Ratio:
    """Of an image, median by median: both sides of a pair saw the same clock and load."""
    return paired_ratio(_medians(one), _medians(other), one.processes)


def _interval(ratio: Ratio) -> tuple[float, float] | None:
    return None if ratio.low is None or ratio.high is None else (round(ratio.low, 3), round(ratio.high, 3))


def _medians(one: Measured) -> list[float]:
    """Typical time of a frame in each turn."""
    return [float(np.median(turn.times.total_ms)) / one.batch for turn in one.turns]


def _joined(turns: Sequence[Turn]) -> Times:
    times = Times()
    for turn in turns:
        times.extend(turn.times)
    return times


def _series(one: Measured) -> tuple[Moment, ...]:
    moments = []
    parts = np.array_split(np.arange(len(one.turns)), min(len(one.turns), _MOST_MOMENTS))
    for part in parts:
        first, last = int(part[0]), int(part[-1])
        p50, p90 = np.percentile(_joined(one.turns[first : last + 1]).total_ms, (50, 90))
        condition = one.turns[last].condition
        mhz = condition.mean_mhz
        moments.append(
            Moment(
                t_s=round(one.ends_s[last], 2),
                p50_ms=round(float(p50), 3),
                p90_ms=round(float(p90), 3),
                mhz=None if mhz is None else round(mhz, 1),
                celsius=condition.celsius,
            )
        )
    return tuple(moments)


def _sustained(one: Measured) -> Sustained:
    """The first minute against the last one; halves of what is shorter than two."""
    whole_s = one.ends_s[-1]
    window_s = min(_MINUTE_S, whole_s / 2)
    first = [t for t, end in zip(one.turns, one.ends_s, strict=True) if end <= window_s] or [one.turns[0]]
    last = [t for t, end in zip(one.turns, one.ends_s, strict=True) if end > whole_s - window_s]
    early, late = (np.array(_joined(part).total_ms) for part in (first, last))
    p50s = [float(np.median(part)) for part in (early, late)]
    return Sustained(
        window_s=round(window_s, 1),
        first_p50_ms=round(p50s[0], 4),
        last_p50_ms=round(p50s[1], 4),
        first_fps=round(1000 * one.batch / float(early.mean()), 2),
        last_fps=round(1000 * one.batch / float(late.mean()), 2),
        ratio=round(p50s[1] / p50s[0], 4),
    )


def _energy(turns: Sequence[Turn]) -> tuple[float | None, str]:
    """Sum over the turns; unknown where any of them is."""
    joules = [turn.joules for turn in turns]
    known = [one for one in joules if one is not None]
    return (sum(known), turns[0].energy_source) if len(known) == len(turns) else (None, "")


def _median(values: Sequence[float]) -> float:
    return round(float(np.median(values)), 4)
