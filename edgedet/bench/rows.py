"""Times of frames to the rows of a report, and what must be said with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgedet.bench.report import BenchmarkRow, Percentiles
from edgedet.bench.stopwatch import Times
from edgedet.environment import Environment
from edgedet.executed import ExecutedGraph, fallback_warning
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
    executed: ExecutedGraph | None = None


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
    ratios = [] if reference is None else _speedups(reference, one)
    interval = None if reference is one else median_interval(ratios)
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
        speedup_vs_fp32=round(float(np.median(ratios)), 3) if ratios else None,
        speedup_interval=None if interval is None else (round(interval[0], 3), round(interval[1], 3)),
        integer_share=None if one.executed is None else one.executed.integer_share,
    )


def _speedups(reference: Measured, one: Measured) -> list[float]:
    """Ratio of medians round by round: both sides of a ratio saw the same clock and load."""
    pairs = zip(reference.rounds, one.rounds, strict=True)
    return [float(np.median(a.total_ms) / np.median(b.total_ms)) for a, b in pairs]


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Confidence interval of a median that assumes nothing of how the values are distributed.

    The k-th smallest and the k-th largest of n values enclose the median with probability
    1 - 2 P(B < k), B binomial with n and 1/2 (Conover, Practical Nonparametric Statistics, section 3.2).

    Args:
        values: Independent values.
        confidence: Least probability, 0..1.

    Returns:
        The narrowest such pair; None with too few values for that confidence, six for 0.95.
    """
    ordered, n = sorted(values), len(values)
    best = None
    below = 0.0  # P(B < k)
    for k in range(1, n // 2 + 1):
        below += math.comb(n, k - 1) / 2**n
        if 1 - 2 * below >= confidence:
            best = (ordered[k - 1], ordered[n - k])
    return best


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


def fallback_warnings(measured: Sequence[Measured]) -> tuple[str, ...]:
    """One sentence for each artifact that is meant to run on integers and does not throughout."""
    found = {
        f"{one.runtime} {one.precision}": warning
        for one in measured
        if one.executed is not None and (warning := fallback_warning(one.executed))
    }
    advice = "`edgedet inspect --executed` lists them"
    return tuple(f"{name}: {warning}; {advice}" for name, warning in found.items())


def _name(row: BenchmarkRow) -> str:
    return f"{row.runtime} {row.precision} with {row.threads} thread{'s' * (row.threads > 1)}"
