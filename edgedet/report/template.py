"""Pages from the templates in this folder: all text is escaped, and a name that has no value is an error."""

from __future__ import annotations

from importlib import resources

from edgedet.registry import missing_extra


def render(template: str, **values: object) -> str:
    """The page of a template.

    Args:
        template: Name of its file.
        values: What it names.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    except ModuleNotFoundError as exc:
        raise missing_extra("the HTML report", exc, "report") from exc
    environment = Environment(
        loader=FunctionLoader(_text),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def _text(name: str) -> str:
    return resources.files("edgedet.report").joinpath(name).read_text("utf-8")
