"""The proof of a bundle as one HTML file that needs nothing else: no network, no scripts, images inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgedet.bench.report import BenchmarkReport
from edgedet.files import write_atomically
from edgedet.parity.report import ParityReport
from edgedet.report.page import page_of
from edgedet.report.pictures import Picture
from edgedet.report.plots import Plot
from edgedet.report.template import render
from edgedet.spec import DetectorSpec

_TEMPLATE = "report.html.j2"


def write_report(
    path: Path,
    spec: DetectorSpec,
    parity: ParityReport,
    benchmark: BenchmarkReport | None = None,
    pictures: Sequence[Picture] = (),
    plots: Sequence[Plot] = (),
) -> None:
    """Write the page.

    Labels, file names and everything else that comes from outside is escaped, and a content security policy
    forbids scripts and requests.

    Args:
        path: The .html file.
        spec: The float detector's.
        parity: What was compared.
        benchmark: What was timed, of the same bundle.
        pictures: Of `comparison_pictures`.
        plots: Of `sensitivity_plot` and `pareto_plot`.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    write_atomically(path, render(_TEMPLATE, page=page_of(spec, parity, benchmark, pictures, plots)))
