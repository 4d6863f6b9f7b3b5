"""Pages from the templates in this folder: all text is escaped, and a name that has no value is an error."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from edgedet.files import check_writable
from edgedet.registry import missing_extra


def check_page(path: Path) -> None:
    """Refuse a page before the work that it would show.

    Raises:
        UsageError: It cannot be written there.
        MissingExtraError: jinja2 is not installed.
    """
    check_writable(path)
    _jinja2()


def render(template: str, **values: object) -> str:
    """The page of a template.

    Args:
        template: Name of its file.
        values: What it names.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    jinja2 = _jinja2()
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return str(environment.get_template(template).render(**values))


def _jinja2() -> Any:
    try:
        import jinja2
    except ModuleNotFoundError as exc:
        raise missing_extra("the HTML report", exc, "report") from exc
    return jinja2


def _text(name: str) -> str:
    return resources.files("edgedet.report").joinpath(name).read_text("utf-8")
