"""The proof of a bundle as one HTML file that needs nothing else: no network, no scripts, images inside."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from edgedet.bench.report import BenchmarkReport
from edgedet.files import write_atomically
from edgedet.parity.report import ParityReport
from edgedet.registry import missing_extra
from edgedet.report.page import page_of
from edgedet.report.pictures import Picture
from edgedet.report.plots import Plot
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
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    except ModuleNotFoundError as exc:
        raise missing_extra("the HTML report", exc, "report") from exc
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = page_of(spec, parity, benchmark, pictures, plots)
    write_atomically(path, environment.get_template(_TEMPLATE).render(page=page))


def _template(name: str) -> str:
    return resources.files("edgedet.report").joinpath(name).read_text("utf-8")
