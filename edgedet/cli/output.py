"""What a command prints, once for readers and once as JSON: the same values.

Tables go to standard output, errors and notices to standard error. With `--json -` standard output holds the
JSON and nothing else: what vendors print, from Python or from C, is sent to standard error meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgedet.data.dataset import Dataset
from edgedet.errors import EdgedetError, UsageError
from edgedet.files import check_writable, write_atomically
from edgedet.text import printable, shown

JsonOption = Annotated[
    str | None,
    typer.Option(
        "--json", metavar="FILE|-", help="Write the values that are printed as JSON; - is standard output."
    ),
]

MarkdownOption = Annotated[
    str | None,
    typer.Option(
        "--markdown",
        metavar="FILE|-",
        help="Write a summary for GitHub, as $GITHUB_STEP_SUMMARY takes it; - is standard output.",
    ),
]

# Tables are as wide as they need to be where no terminal sets a width, so that a log or a pipe holds whole
# lines.
_WIDTH_WITHOUT_TERMINAL = 10_000

_NONE = "–"


class Output:
    """Where one command's results go."""

    def __init__(self, console: Console, json_target: str | None, markdown_target: str | None = None) -> None:
        self._console = console
        self._json_target = json_target
        self._markdown_target = markdown_target

    def line(self, text: str = "") -> None:
        """Print a line; what a terminal would obey is written out."""
        self._console.out(shown(text), highlight=False)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table; columns of numbers are aligned to the right, None is shown as a dash."""
        cells = [[_NONE if cell is None else str(cell) for cell in row] for row in rows]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for index, column in enumerate(columns):
            column_cells = [row[index] for row in cells if row[index] != _NONE]
            numeric = bool(column_cells) and all(map(_is_number, column_cells))
            folds = index == len(columns) - 1  # the others are names and numbers, which are read whole
            table.add_column(
                column, justify="right" if numeric else "left", overflow="fold", no_wrap=not folds
            )
        for row in cells:
            table.add_row(*(escape(shown(cell)) for cell in row))
        with self._console.capture() as captured:
            self._console.print(table, highlight=False)
        for line in captured.get().splitlines():
            self.line(line.rstrip())

    def json(self, values: Any) -> None:
        """Write the values where `--json` says, if it was given; call once, at the end."""
        if self._json_target is None:
            return
        is_plain = self._json_target == "-" and self._console.encoding not in ("utf-8", "utf8")
        text = json.dumps(values, indent=2, ensure_ascii=is_plain, allow_nan=False) + "\n"
        self._write(text, self._json_target)

    def markdown(self, text: str) -> None:
        """Write the summary where `--markdown` says, if it was given."""
        if self._markdown_target is not None:
            self._write(text, self._markdown_target)

    def _write(self, text: str, target: str) -> None:
        if target == "-":
            self._console.file.write(printable(text))
            self._console.file.flush()
        else:
            write_atomically(Path(target), text)


def _is_number(cell: str) -> bool:
    return cell.replace("%", "").lstrip("+-").replace(".", "", 1).isdigit()


@contextlib.contextmanager
def open_output(json_target: str | None, markdown_target: str | None = None) -> Iterator[Output]:
    """The output of a command.

    Raises:
        UsageError: `--json` or `--markdown` names something that is not a file that can be written, or both
            are to be written to standard output.
    """
    targets = {"JSON": json_target, "Markdown": markdown_target}
    if list(targets.values()).count("-") > 1:
        raise UsageError(
            "standard output cannot hold both",
            got="--json - and --markdown -",
            expected="one of them on standard output",
            fix="give one of them a file",
        )
    for what, target in targets.items():
        if target is not None and target != "-":
            _check_target(what, Path(target))
    if "-" not in targets.values():
        width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
        yield Output(Console(width=width), json_target, markdown_target)
        return
    with _standard_output_set_aside() as stream:
        yield Output(Console(file=stream, quiet=True), json_target, markdown_target)


def _check_target(what: str, path: Path) -> None:
    if not path.parent.is_dir():
        raise UsageError(
            f"cannot write the {what}",
            got=f"{path}, whose folder does not exist",
            expected="a file in a folder that exists, or -",
            fix=f"make the folder {path.parent} first",
        )
    check_writable(path)


@contextlib.contextmanager
def _standard_output_set_aside() -> Iterator[Any]:
    """The real standard output, while everything that is written to it goes to standard error."""
    stream = sys.stdout
    stream.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as descriptor:
        os.dup2(2, 1)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield descriptor if _is_descriptor_1(stream) else stream
        finally:
            os.dup2(descriptor.fileno(), 1)


def _is_descriptor_1(stream: Any) -> bool:
    try:
        return bool(stream.fileno() == 1)
    except OSError:  # replaced by an object without a file, as in tests and notebooks
        return False


def percent(fraction: float | None) -> str | None:
    """A fraction in percent with two digits, as average precision is printed."""
    return None if fraction is None else f"{100 * fraction:.2f}"


def megabytes(count: int) -> str:
    """Bytes in millions."""
    return f"{count / 1e6:.2f}"


def notice(text: str) -> None:
    """Print a line for the reader on standard error."""
    print(shown(text), file=sys.stderr)


def lost_images(dataset: Dataset) -> bool:
    """Whether images of the data set were missing or could not be read, said on standard error."""
    summary = dataset.summary
    if summary.lost_images:
        notice(f"edgedet: {summary.lost_images} images of {dataset.root} could not be used; {summary}")
    return summary.lost_images > 0


def print_error(error: EdgedetError) -> None:
    """Print an error as one paragraph: what, got, expected, fix."""
    print(shown(f"edgedet: {' '.join(str(error).split())}"), file=sys.stderr)
