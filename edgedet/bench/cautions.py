"""What a reader should know before believing or using a number of a benchmark."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from edgedet.bench.coverage import Verdict
from edgedet.bench.report import SINGLE_STREAM_S, BenchmarkRow, Noise
from edgedet.bench.rows import Measured
from edgedet.bundle import artifact_name
from edgedet.environment import Environment
from edgedet.executed import fallback_warning

# With fewer inferences the 99th percentile is the slowest one.
_INFERENCES_FOR_P99 = 100

# A clock that fell by more than this between the first and the last tenth of a measurement.
_CLOCK_FELL = 0.10


def warnings_of(
    rows: Sequence[BenchmarkRow], environment: Environment, load_average: float, noise: Noise | None = None
) -> tuple[str, ...]:
    """One sentence each.

    Args:
        rows: What was measured.
        environment: The machine.
        load_average: Processes that were running on average in the minute before.
        noise: What one artifact, measured as two, differs by.
    """
    return (
        *_slower(rows),
        *_doubtful_rows(rows, environment),
        *_machine(environment, load_average),
        *_conditions(rows),
        *_short(rows),
        *_noise(rows, noise),
    )


def fallback_warnings(measured: Sequence[Measured]) -> tuple[str, ...]:
    """One sentence for each artifact that is meant to run on integers and does not throughout."""
    found = {
        artifact_name(one.runtime, one.precision, one.batch): warning
        for one in measured
        if one.executed is not None and (warning := fallback_warning(one.executed))
    }
    advice = "`edgedet inspect --executed` lists them"
    return tuple(f"{name}: {warning}; {advice}" for name, warning in found.items())


def fallback_failures(rows: Sequence[BenchmarkRow]) -> tuple[str, ...]:
    """One sentence for each artifact that did not run as it was meant to."""
    return tuple(f"{name} fell back: {reason}" for name, reason in _reasons(rows, "fallback"))


def unknown_coverage(rows: Sequence[BenchmarkRow]) -> tuple[str, ...]:
    """One sentence for each artifact of which nobody knows whether it ran on integers."""
    return tuple(
        f"whether {name} ran on integers is not known: {reason}" for name, reason in _reasons(rows, "unknown")
    )


def name_of(row: BenchmarkRow) -> str:
    """As sentences call a row."""
    name = artifact_name(row.runtime, row.precision, row.batch)
    return f"{name} with {row.threads} thread{'s' * (row.threads > 1)}"


def _reasons(rows: Sequence[BenchmarkRow], verdict: Verdict) -> Iterable[tuple[str, str]]:
    """Artifacts with that verdict, however many threads they had, and why they have it."""
    return {
        artifact_name(row.runtime, row.precision, row.batch): row.coverage.reason
        for row in rows
        if row.coverage is not None and row.coverage.verdict == verdict
    }.items()


def _slower(rows: Sequence[BenchmarkRow]) -> list[str]:
    slower = [row for row in rows if row.precision != "fp32" and (row.speedup_vs_fp32 or 1) < 1]
    return [
        f"{name_of(row)} takes {1 / (row.speedup_vs_fp32 or 1):.2f} times as long as its fp32: "
        f"{row.precision} gains no speed here, only size"
        for row in slower
    ]


def _doubtful_rows(rows: Sequence[BenchmarkRow], environment: Environment) -> list[str]:
    kinds = (
        ([row for row in rows if not row.stable], "the time of a frame was not steady before measuring"),
        (
            [row for row in rows if row.frames < _INFERENCES_FOR_P99 * row.batch],
            "so few inferences that p99 is about the slowest",
        ),
        (
            [row for row in rows if row.detections_per_frame == 0],
            "no object found, so that postprocessing idles",
        ),
        (
            [row for row in rows if row.threads > environment.cores],
            f"more threads than {environment.cores} cores",
        ),
    )
    return [f"{sentence}: {', '.join(map(name_of, faulty))}" for faulty, sentence in kinds if faulty]


def _machine(environment: Environment, load_average: float) -> list[str]:
    warnings = []
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
    return warnings


def _conditions(rows: Sequence[BenchmarkRow]) -> list[str]:
    """A clock that fell, and counters that rose while a row was measured."""
    warnings = []
    for row in rows:
        clocks = [moment.mhz for moment in row.series if moment.mhz is not None]
        tenth = max(1, len(clocks) // 10)
        if len(clocks) > 1:
            first, last = statistics.median(clocks[:tenth]), statistics.median(clocks[-tenth:])
            if last < (1 - _CLOCK_FELL) * first:
                warnings.append(
                    f"the clock fell from {first:.0f} to {last:.0f} MHz while {name_of(row)} was measured"
                )
    if not rows or any(row.before is None or row.after is None for row in rows):
        return warnings
    for field, sentence in (
        ("throttle_events", "the processor was slowed for its heat {} times while it was measured"),
        ("cgroup_throttled", "the container used up its share of the CPU and was stopped {} times"),
    ):
        counts = [getattr(state, field) for row in rows for state in (row.before, row.after)]
        known = [count for count in counts if count is not None]
        if known and max(known) > min(known):
            warnings.append(sentence.format(max(known) - min(known)))
    return warnings


def _short(rows: Sequence[BenchmarkRow]) -> list[str]:
    compared = [row.sustained.window_s for row in rows if row.sustained is not None]
    if compared and min(compared) < SINGLE_STREAM_S:
        return [
            f"too short for a sustained measurement: its first {min(compared):.0f} s are compared with its "
            "last, where minute 1 is meant; --duration 30m shows what heat does"
        ]
    return []


def _noise(rows: Sequence[BenchmarkRow], noise: Noise | None) -> list[str]:
    if noise is None:
        return []
    warnings, name = [], artifact_name(noise.runtime, noise.precision, noise.batch)
    if not noise.ratio.holds_one:
        warnings.append(
            f"the same {name} twice is not equally fast in this run "
            f"(95 % interval {noise.ratio.low:.4f} to {noise.ratio.high:.4f}): "
            "intervals of speed-ups are too narrow by as much"
        )
    unclear = [
        name_of(row)
        for row in rows
        if row.precision != "fp32" and row.speedup_vs_fp32 and abs(row.speedup_vs_fp32 - 1) <= noise.floor
    ]
    if unclear:
        warnings.append(f"no faster or slower than fp32 beyond the noise: {', '.join(unclear)}")
    return warnings
