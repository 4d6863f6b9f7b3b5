"""Annotations of formats that no reader reads: named with the way out.

Images beside them can be detected in and calibrated with, so they are read without boxes and the format is
counted in the summary, which is part of what every command says that finds no boxes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from edgedet.data.dataset import Summary
from edgedet.errors import DataError

# The start of a file tells its format.
_FORMATS = (
    ("CVAT's own XML", ".xml", rb"<annotations[\s>]"),
    ("Create ML's JSON", ".json", rb'^\s*\[\s*\{.*"coordinates"\s*:\s*\{'),
    ("LabelMe's JSON", ".json", rb'"shapes"\s*:\s*\['),
    (
        "Label Studio's own JSON",
        ".json",
        rb'^\s*\[\s*\{.*"(annotations|completions)"\s*:.*"(data|result)"\s*:',
    ),
    ("VGG Image Annotator's own JSON", ".json", rb'"_via_img_metadata"|"file_attributes"'),
)
_SUFFIXES = frozenset({".json", ".xml"})

_HEAD = 2**16

# So many files of a folder are looked at: where each image has a file, one of them tells the format.
_LOOKED_AT = 20


_EXPORTS = "COCO 1.0, Pascal VOC 1.1 or YOLO 1.1"


def check_no_other_format(path: Path) -> None:
    """Raise where a path that no reader knows holds the boxes of another format.

    Raises:
        DataError: It does; says which format, and what to export.
    """
    for file, name in _others(path):
        raise DataError(
            f"{file} is {name}, which is not read",
            got=name,
            expected="COCO, Pascal VOC or YOLO",
            fix=f"export it again as {_EXPORTS}; or, for images without boxes, give the folder of the images "
            "alone",
        )


def leave_out_other_formats(path: Path, summary: Summary) -> None:
    """Count each other format of which a folder of images holds boxes once."""
    for name, file in {name: file for file, name in reversed(list(_others(path)))}.items():
        summary.leave_out(f"annotation set in {name}, which is not read: export it as {_EXPORTS}", file.name)


def _others(path: Path) -> Iterator[tuple[Path, str]]:
    for file in islice(_candidates(path), _LOOKED_AT):
        if (name := _format_of(file)) is not None:
            yield file, name


def _candidates(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        found = sorted([*path.glob("*"), *path.glob("*/*")])
        yield from (file for file in found if file.suffix.lower() in _SUFFIXES)


def _format_of(file: Path) -> str | None:
    try:
        with file.open("rb") as opened:
            head = opened.read(_HEAD).removeprefix(b"\xef\xbb\xbf")
    except OSError:
        return None
    for name, suffix, start in _FORMATS:
        if file.suffix.lower() == suffix and re.search(start, head, re.DOTALL):
            return name
    return None
