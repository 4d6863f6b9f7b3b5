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
from edgedet.spec import DetectorSpec

_TEMPLATE = "report.html.j2"


def write_report(
    path: Path,
    spec: DetectorSpec,
    parity: ParityReport,
    benchmark: BenchmarkReport | None = None,
    pictures: Sequence[Picture] = (),
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

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ModuleNotFoundError as exc:
        raise missing_extra("the HTML report", exc, "report") from exc
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("edgedet.report").joinpath(_TEMPLATE).read_text("utf-8")
    page = page_of(spec, parity, benchmark, pictures)
    write_atomically(path, environment.from_string(source).render(page=page))
