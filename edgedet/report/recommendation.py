"""A recommendation as one HTML file with a plot of what was measured: no network, no scripts."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from edgedet.files import write_atomically
from edgedet.registry import missing_extra
from edgedet.report.template import render
from edgedet.report.wording import NOTHING

if TYPE_CHECKING:
    from edgedet.recommend import Figures, Recommendation, RecommendationReport

_TEMPLATE = "recommendation.html.j2"


def write_recommendation(path: Path, report: RecommendationReport) -> None:
    """Write the page; all text is escaped, and a content security policy forbids scripts and requests.

    Args:
        path: The .html file.
        report: Of `edgedet.recommend.run_recommendation`.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    try:
        picture = pareto_png(report.recommendation)
    except ModuleNotFoundError as exc:
        raise missing_extra("the HTML report", exc, "report") from exc
    plot = "data:image/png;base64," + base64.b64encode(picture).decode()
    rows = [_cells(row) for row in report.recommendation.rows]
    write_atomically(path, render(_TEMPLATE, report=report, rows=rows, plot=plot))


def pareto_png(found: Recommendation) -> bytes:
    """Latency against mAP, one colour a runtime and an area in proportion to the size of the artifact.

    Filled are those that are Pareto-optimal for their runtime; the line is the least mAP that may be shipped.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    largest = max((row.model_bytes for row in found.rows), default=1)
    runtimes = list(dict.fromkeys(row.runtime for row in found.rows))
    for row in found.rows:
        colour = f"C{runtimes.index(row.runtime)}"
        axes.scatter(
            row.latency_ms,
            100 * row.map,
            s=40 + 260 * row.model_bytes / largest,
            edgecolors=colour,
            facecolors=colour if row.optimal else "none",
            alpha=0.8,
        )
        is_chosen = (row.runtime, row.precision) == (found.runtime, found.precision)
        axes.annotate(
            f"{row.runtime} {row.precision}",
            (row.latency_ms, 100 * row.map),
            xytext=(8, 8),
            textcoords="offset points",
            weight="bold" if is_chosen else "normal",
        )
    if found.float_map:
        axes.axhline(100 * (1 - found.max_drop) * found.float_map, linestyle="--", color="grey", linewidth=1)
    axes.set(xlabel="median latency of a frame, ms", ylabel="mAP", xlim=(0, None))
    axes.margins(x=0.2, y=0.2)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    return data.getvalue()


def _cells(row: Figures) -> tuple[str, ...]:
    interval = row.ratio_interval
    return (
        row.runtime,
        row.precision,
        f"{row.latency_ms:.2f}",
        NOTHING if row.latency_ratio is None else f"{row.latency_ratio:.2f}",
        NOTHING if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}",
        f"{100 * row.map:.2f}",
        NOTHING if row.map_drop is None else f"{100 * row.map_drop:.2f}",
        f"{row.model_bytes / 1e6:.2f}",
        "yes" if row.optimal else "no",
    )
