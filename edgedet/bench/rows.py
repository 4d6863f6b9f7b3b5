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
    """What one worker measured; fields are those of `BenchmarkRow`."""

    runtime: str
    precision: Precision
    threads: int
    model_bytes: int
    times: Times
    load_ms: float
    warm_up_frames: int
    stable: bool
    peak_rss_mb: float | None


def benchmark_rows(measured: Sequence[Measured]) -> tuple[BenchmarkRow, ...]:
    """One row each, in the order given."""
    float_p50 = {
        (one.runtime, one.threads): float(np.median(one.times.total_ms))
        for one in measured
        if one.precision == "fp32"
    }
    return tuple(_row(one, float_p50.get((one.runtime, one.threads))) for one in measured)


def _row(one: Measured, float_p50_ms: float | None) -> BenchmarkRow:
    times = one.times
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
        speedup_vs_fp32=None if float_p50_ms is None else round(float_p50_ms / float(np.median(total)), 3),
    )


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
    warnings = [warning for row in rows for warning in _row_warnings(row)]
    if load_average > 0.5 * environment.cores:
        warnings.append(
            f"other programs kept {load_average:.1f} of {environment.cores} cores busy before "
            "the first measurement; compare ratios, not milliseconds"
        )
    if environment.governor not in ("", "performance"):
        warnings.append(
            f"the frequency governor is {environment.governor!r}, so that the clock varies; "
            "set it to performance for numbers that repeat"
        )
    if any(row.threads > environment.cores for row in rows):
        warnings.append(f"more threads than the {environment.cores} cores that this process may use")
    return tuple(warnings)


def _row_warnings(row: BenchmarkRow) -> list[str]:
    name = f"{row.runtime} {row.precision} with {row.threads} thread{'s' * (row.threads > 1)}"
    warnings = []
    if row.precision == "int8" and row.speedup_vs_fp32 is not None and row.speedup_vs_fp32 < 1:
        slower = 1 / row.speedup_vs_fp32
        warnings.append(
            f"{name} takes {slower:.2f} times as long as its fp32: INT8 gains no speed here, only size"
        )
    if not row.stable:
        warnings.append(f"{name} did not reach a steady time a frame before it was measured")
    if row.frames < _FRAMES_FOR_P99:
        warnings.append(
            f"{name} was measured on {row.frames} frames: its p99 is about the slowest; measure longer"
        )
    if row.detections_per_frame == 0:
        warnings.append(
            f"{name} found no object in these images: postprocessing will take longer where it does"
        )
    return warnings
