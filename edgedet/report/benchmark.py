"""A benchmark as one HTML file with a curve over time of each row: no network, no scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedet.bench.report import BenchmarkReport, BenchmarkRow, Moment
from edgedet.bundle import artifact_name
from edgedet.files import write_atomically
from edgedet.report.template import render
from edgedet.report.wording import NOTHING

_COLD_COLUMNS = ("runtime", "precision", "threads", "Python", "import", "open", "first frame", "total ms")
_TEMPLATE = "benchmark.html.j2"

# Of the drawing, in its own units.
_WIDTH, _HEIGHT = 600.0, 120.0
# A single disturbed slice would flatten all others.
_HIGHEST_SHARE = 0.98


@dataclass(frozen=True, slots=True)
class Curve:
    """One row over time; points are those of an SVG polyline.

    Attributes:
        title: Which row.
        p50: Medians of slices; `p90` and `mhz` likewise, "" where there is none of the latter.
        top_ms: Time at the upper edge; the lower one is 0.
        end_s: Time at the right edge.
        note: Clock and temperature at both ends, and what is left of the speed.
    """

    title: str
    p50: str
    p90: str
    mhz: str
    top_ms: str
    end_s: str
    note: str


def write_benchmark(path: Path, report: BenchmarkReport) -> None:
    """Write the page; all text is escaped, and a content security policy forbids scripts and requests.

    Args:
        path: The .html file.
        report: Of `edgedet.bench.run_benchmark`.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    is_swept = any(row.batch > 1 for row in report.rows)
    page = render(
        _TEMPLATE,
        report=report,
        headline=_headline(report),
        cold_columns=_COLD_COLUMNS,
        columns=_columns(is_swept),
        rows=[(_cells(row, is_swept), row in report.fallbacks) for row in report.rows],
        cold=[_cold_cells(row) for row in report.rows if row.cold_start is not None],
        curves=[curve_of(row) for row in report.rows if len(row.series) > 1],
        width=_WIDTH,
        height=_HEIGHT,
    )
    write_atomically(path, page)


def _headline(report: BenchmarkReport) -> str:
    """The row with the most images a second."""
    row = max(report.rows, key=lambda one: one.fps)
    threads = f"{row.threads} thread{'s' * (row.threads > 1)}"
    name = artifact_name(row.runtime, row.precision, row.batch)
    return f"Fastest: {name} with {threads}, {row.fps:.1f} images a second, p50 {row.total_ms.p50:.2f} ms."


def curve_of(row: BenchmarkRow) -> Curve:
    """The drawing of a row with two slices or more."""
    highest = sorted(moment.p90_ms for moment in row.series)
    top_ms = 1.15 * highest[min(len(highest) - 1, int(_HIGHEST_SHARE * len(highest)))]
    end_s = row.series[-1].t_s
    clocks = [moment.mhz for moment in row.series if moment.mhz is not None]
    fastest = max(clocks, default=0.0)
    return Curve(
        title=f"{artifact_name(row.runtime, row.precision, row.batch)}, "
        f"{row.threads} thread{'s' * (row.threads > 1)}",
        p50=_points([(moment.t_s / end_s, moment.p50_ms / top_ms) for moment in row.series]),
        p90=_points([(moment.t_s / end_s, moment.p90_ms / top_ms) for moment in row.series]),
        mhz=_points([(m.t_s / end_s, 0.9 * m.mhz / fastest) for m in row.series if m.mhz and fastest]),
        top_ms=f"{top_ms:.1f} ms",
        end_s=f"{end_s:.0f} s" if end_s < 120 else f"{end_s / 60:.1f} min",
        note=_note(row, row.series[0], row.series[-1]),
    )


def _points(places: Sequence[tuple[float, float]]) -> str:
    """Places from 0 to 1, right and up, in the units of the drawing; what is higher is at its edge."""
    return " ".join(f"{_WIDTH * x:.1f},{_HEIGHT * (1 - min(y, 1.0)):.1f}" for x, y in places)


def _note(row: BenchmarkRow, first: Moment, last: Moment) -> str:
    parts = []
    if row.sustained is not None:
        one = row.sustained
        parts.append(
            f"first {one.window_s:g} s {one.first_p50_ms:.2f} ms, last {one.last_p50_ms:.2f} ms: "
            f"{one.ratio:.3f} times as long"
        )
    if first.mhz is not None and last.mhz is not None:
        parts.append(f"clock {first.mhz:.0f} to {last.mhz:.0f} MHz")
    if first.celsius is not None and last.celsius is not None:
        parts.append(f"{first.celsius:.0f} to {last.celsius:.0f} °C")
    if row.joules_per_frame is not None:
        parts.append(f"{1e3 * row.joules_per_frame:.1f} mJ a frame ({row.energy_source})")
    return "; ".join(parts) or "this machine tells neither clock nor temperature"


def _columns(is_swept: bool) -> tuple[str, ...]:
    return (
        *("runtime", "precision", "threads", *(("batch",) if is_swept else ())),
        *("p50 ms", "p90", "p99", "inference", "fps"),
        *(("× batch 1", "95 % interval") if is_swept else ()),
        *("× fp32", "95 % interval", "int8 ops %", "ran as", "RSS MB", "MB"),
    )


def _cells(row: BenchmarkRow, is_swept: bool) -> tuple[str, ...]:
    interval, gain, of_gain = row.speedup_interval, row.gain_over_batch_1, row.gain_interval
    gains = (
        NOTHING if gain is None else f"{gain:.2f}",
        NOTHING if of_gain is None else f"{of_gain[0]:.2f} to {of_gain[1]:.2f}",
    )
    return (
        row.runtime,
        row.precision,
        str(row.threads),
        *((str(row.batch),) if is_swept else ()),
        f"{row.total_ms.p50:.2f}",
        f"{row.total_ms.p90:.2f}",
        f"{row.total_ms.p99:.2f}",
        f"{row.inference_ms:.2f}",
        f"{row.fps:.1f}",
        *(gains if is_swept else ()),
        NOTHING if row.speedup_vs_fp32 is None else f"{row.speedup_vs_fp32:.2f}",
        NOTHING if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}",
        NOTHING if row.integer_share is None else f"{100 * row.integer_share:.1f}",
        NOTHING if row.coverage is None else row.coverage.verdict,
        NOTHING if row.peak_rss_mb is None else f"{row.peak_rss_mb:.0f}",
        f"{row.model_bytes / 1e6:.2f}",
    )


def _cold_cells(row: BenchmarkRow) -> tuple[str, ...]:
    one = row.cold_start
    if one is None:
        return ()
    times = (one.interpreter_ms, one.import_ms, one.open_ms, one.first_frame_ms, one.total_ms)
    name = artifact_name(row.runtime, None, row.batch)
    return (name, row.precision, str(row.threads), *(f"{ms:.0f}" for ms in times))
