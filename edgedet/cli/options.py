"""Options that several commands share, and how lists in them are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from edgedet import registry
from edgedet.errors import UsageError
from edgedet.selection import check_precision
from edgedet.spec import PRECISIONS, Precision

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder made by `edgedet export`.")]
ModelArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE|FILE", help="A bundle, or one artifact with its spec inside.")
]
DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="DIR",
        help="A COCO json beside its images, a VOC or YOLO root, a folder of images, or `builtin`.",
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option("--split", help="A split of the data set, such as train or test; all of it if not given."),
]
RuntimeOption = Annotated[
    str | None,
    typer.Option(
        "--runtime", help="One of " + ", ".join(registry.RUNTIMES) + "; the first installed if not given."
    ),
]
RuntimesOption = Annotated[
    str | None,
    typer.Option("--runtimes", help="Runtimes separated by commas; all that the bundle has if not given."),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="One of " + ", ".join(PRECISIONS) + "; the first that the bundle has if not given.",
    ),
]
PrecisionsOption = Annotated[
    str | None,
    typer.Option(
        "--precisions",
        help="Of " + ", ".join(PRECISIONS) + ", with commas; all of the bundle if not given.",
    ),
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads; the runtime's own choice if not given.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Use the first so many images only.")]

_MOST = 1024
_LEAST_S = 0.1
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def runtimes_from(text: str | None) -> tuple[str, ...] | None:
    """Names of runtimes from a list with commas; None stays None.

    Raises:
        UsageError: One of them does not exist.
    """
    return None if text is None else _registered(text, registry.RUNTIMES)


def targets_from(text: str) -> tuple[str, ...]:
    """Names of export targets from a list with commas.

    Raises:
        UsageError: One of them does not exist.
    """
    return _registered(text, registry.TARGETS)


def precisions_from(text: str | None) -> tuple[Precision, ...] | None:
    """Precisions from a list with commas; None stays None.

    Raises:
        UsageError: One of them does not exist.
    """
    if text is None:
        return None
    names = [check_precision(name) for name in _split(text)]
    if not names:
        raise UsageError(
            "there is no precision in the list",
            got=repr(text),
            expected="names among " + ", ".join(PRECISIONS) + ", separated by commas",
            fix="use the listed names",
        )
    return tuple(precision for precision in PRECISIONS if precision in names)


def numbers_from(text: str, option: str, most: int = _MOST) -> tuple[int, ...]:
    """Whole numbers from 1 to `most` from a list with commas.

    Raises:
        UsageError: Something in the list is none.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and 0 < int(part) <= most for part in parts):
        raise UsageError(
            f"cannot read {option}",
            got=repr(text),
            expected=f"whole numbers from 1 to {most}, separated by commas",
            fix=f"for example {option} 1,2",
        )
    return tuple(dict.fromkeys(map(int, parts)))


def seconds_from(text: str) -> float:
    """Seconds from "90", "90s", "1.5m" or "2h".

    Raises:
        UsageError: It is none of those, or less than a tenth of a second.
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([smh]?)\s*", text.lower())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if seconds < _LEAST_S:
        raise UsageError(
            "cannot read --duration",
            got=repr(text),
            expected=f"seconds, or a number with s, m or h, of {_LEAST_S} seconds or more",
            fix="for example --duration 90 or --duration 30m",
        )
    return seconds


def _registered(text: str, table: registry.Table) -> tuple[str, ...]:
    names = _split(text)
    unknown = [name for name in names if name not in table]
    if unknown or not names:
        raise table.unknown(unknown)
    return names


def _split(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def share_from(text: str) -> float:
    """A part of a whole, 0..1, from "1%" or "0.01".

    Raises:
        UsageError: It is neither.
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(%?)\s*", text)
    share = float(match[1]) / (100 if match[2] else 1) if match else 1.0
    if share >= 1:
        raise UsageError(
            "cannot read --max-drop",
            got=repr(text),
            expected="percent below 100 with a % sign, or a fraction below 1",
            fix="for example --max-drop 1%",
        )
    return share
