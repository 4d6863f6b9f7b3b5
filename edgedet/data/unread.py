"""Annotations of formats that no reader reads: named with the way out, not taken for images without boxes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

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


def check_no_other_format(path: Path) -> None:
    """Raise where a path that no reader of boxes knows holds the boxes of another format.

    Raises:
        DataError: It does; says which format, and what to export.
    """
    for file in islice(_candidates(path), _LOOKED_AT):
        if (name := _format_of(file)) is not None:
            raise DataError(
                f"{file} is {name}, which is not read",
                got=name,
                expected="COCO, Pascal VOC or YOLO",
                fix="export it again as COCO 1.0, Pascal VOC 1.1 or YOLO 1.1; or, for images without boxes, "
                "give the folder of the images alone",
            )


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
