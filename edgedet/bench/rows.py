"""Times of frames to the rows of a report, and what must be said with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgedet.bench.report import BenchmarkRow, Percentiles
from edgedet.bench.stopwatch import Times
from edgedet.environment import Environment
from edgedet.spec import Precision

# With fewer frames the 99th percentile is the slowest one.
_FRAMES_FOR_P99 = 100


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What one worker measured, round by round; other fields are those of `BenchmarkRow`."""

    runtime: str
    precision: Precision
    threads: int
    model_bytes: int
    rounds: tuple[Times, ...]
    load_ms: float
    warm_up_frames: int
    stable: bool
    peak_rss_mb: float | None


def benchmark_rows(measured: Sequence[Measured]) -> tuple[BenchmarkRow, ...]:
    """One row each, in the order given."""
    floats = {(one.runtime, one.threads): one for one in measured if one.precision == "fp32"}
    return tuple(_row(one, floats.get((one.runtime, one.threads))) for one in measured)


def _row(one: Measured, reference: Measured | None) -> BenchmarkRow:
    times = Times()
    for slice_ in one.rounds:
        times.extend(slice_)
    total = np.array(times.total_ms)
    p50, p90, p99 = (round(float(value), 4) for value in np.percentile(total, (50, 90, 99)))
    host_ms = sum(times.preprocess_ms) + sum(times.postprocess_ms)
    return BenchmarkRow(
        runtime=one.runtime,
        precision=one.precision,
        threads=one.threads,
        frames=len(total),
        preprocess_ms=_median(times.preprocess_ms),
        inference_ms=_median(times.inference_ms),
        postprocess_ms=_median(times.postprocess_ms),
        total_ms=Percentiles(p50=p50, p90=p90, p99=p99),
        fps=round(1000 / float(total.mean()), 2),
        host_share=round(host_ms / float(total.sum()), 4),
        detections_per_frame=round(float(np.mean(times.detections)), 2),
        load_ms=round(one.load_ms, 1),
        warm_up_frames=one.warm_up_frames,
        stable=one.stable,
        peak_rss_mb=None if one.peak_rss_mb is None else round(one.peak_rss_mb, 1),
        model_bytes=one.model_bytes,
        speedup_vs_fp32=None if reference is None else round(_speedup(reference, one), 3),
    )


def _speedup(reference: Measured, one: Measured) -> float:
    """Median over rounds of the ratio of medians: both sides of a ratio saw the same clock and load."""
    pairs = zip(reference.rounds, one.rounds, strict=True)
    return float(np.median([np.median(a.total_ms) / np.median(b.total_ms) for a, b in pairs]))


def _median(values: Sequence[float]) -> float:
    return round(float(np.median(values)), 4)


def warnings_of(
    rows: Sequence[BenchmarkRow], environment: Environment, load_average: float
) -> tuple[str, ...]:
    """What a reader should know before believing or using a number.

    Args:
        rows: What was measured.
        environment: The machine.
        load_average: Processes that were running on average in the minute before.
    """
    slower = [row for row in rows if row.precision != "fp32" and (row.speedup_vs_fp32 or 1) < 1]
    warnings = [
        f"{_name(row)} takes {1 / (row.speedup_vs_fp32 or 1):.2f} times as long as its fp32: "
        f"{row.precision} gains no speed here, only size"
        for row in slower
    ]
    for faulty, sentence in (
        ([row for row in rows if not row.stable], "the time of a frame was not steady before measuring"),
        (
            [row for row in rows if row.frames < _FRAMES_FOR_P99],
            "so few frames that p99 is about the slowest",
        ),
        (
            [row for row in rows if row.detections_per_frame == 0],
            "no object found, so that postprocessing idles",
        ),
        (
            [row for row in rows if row.threads > environment.cores],
            f"more threads than {environment.cores} cores",
        ),
    ):
        if faulty:
            warnings.append(f"{sentence}: {', '.join(map(_name, faulty))}")
    if load_average > 0.5 * environment.cores:
        warnings.append(
            f"a load of {load_average:.1f} on {environment.cores} cores before the first measurement; "
            "compare ratios, not milliseconds"
        )
    if environment.governor not in ("", "performance"):
        warnings.append(
            f"the frequency governor is {environment.governor!r}, so that the clock varies; "
            "set it to performance for numbers that repeat"
        )
    return tuple(warnings)


def _name(row: BenchmarkRow) -> str:
    return f"{row.runtime} {row.precision} with {row.threads} thread{'s' * (row.threads > 1)}"
