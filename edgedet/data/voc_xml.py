"""One VOC annotation: the xml, in the encoding that it states, and its objects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgedet.data.dataset import Summary
from edgedet.data.indexed import LARGEST_COORDINATE
from edgedet.registry import missing_extra

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

BAD_ANNOTATION = "annotation that cannot be read"
SWAPPED = "box with swapped corners"
_BAD_ENCODING = "annotation that is not in the encoding it states"
_UNKNOWN_ENCODING = "annotation in an encoding that is not known"

_DECLARED = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# Encodings by what files are in that state them: GB 18030 holds all of GBK and GB 2312, which tools mix up;
# and a declaration that can be read byte by byte is not in UTF-16, whatever it says (.NET's StringWriter).
_MEANT = {"gb2312": "gb18030", "gbk": "gb18030", "utf-16": "utf-8", "unicode": "utf-8", "utf8": "utf-8"}


def parse(path: Path, summary: Summary) -> Element | None:
    """The root of an annotation, or None after counting why it cannot be read.

    Raises:
        MissingExtraError: defusedxml is not installed.
    """
    try:
        from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]
    except ModuleNotFoundError as exc:
        raise missing_extra("the VOC reader", exc, "evaluate") from exc
    try:
        root: Element | None = fromstring(_decoded(path.read_bytes()))
    except UnicodeDecodeError as exc:
        summary.leave_out(_BAD_ENCODING, path.name, str(exc), image=True)
        return None
    except LookupError as exc:
        summary.leave_out(_UNKNOWN_ENCODING, path.name, str(exc), image=True)
        return None
    except (SyntaxError, ValueError, OSError) as exc:  # ParseError is a SyntaxError
        summary.leave_out(BAD_ANNOTATION, path.name, f"{type(exc).__name__}: {exc}", image=True)
        return None
    if root is None or root.tag != "annotation":
        tag = root.tag if root is not None else ""
        summary.leave_out(BAD_ANNOTATION, path.name, f"<{tag}>, not <annotation>", image=True)
        return None
    return root


def _decoded(data: bytes) -> bytes | str:
    """The text of an xml; bytes where no encoding is stated and the parser tells them by their first ones."""
    if data.startswith(_BYTE_ORDER_MARK):
        return data.decode("utf-8-sig")
    declared = _DECLARED.match(data)
    if declared is None:
        return data if data.startswith((b"\xff\xfe", b"\xfe\xff")) else data.decode("utf-8")
    encoding = declared[1].decode("ascii").lower()
    return data.decode(_MEANT.get(encoding, encoding))


def names(tree: Element) -> Iterator[str]:
    """The class names of an annotation's objects."""
    for item in tree.iterfind("object"):
        if name := (item.findtext("name") or "").strip():
            yield name


def corners_of(item: Element) -> tuple[list[str | float | None], bool]:
    """The corners of an object as they are written; sorted, and True, where they are swapped."""
    written: list[str | float | None] = [
        item.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")
    ]
    try:
        x1, y1, x2, y2 = (float(text or "") for text in written)
    except ValueError:
        return written, False
    if (x1 > x2 or y1 > y2) and max(map(abs, (x1, y1, x2, y2))) < LARGEST_COORDINATE:
        return [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)], True
    return written, False


def stated_size(tree: Element) -> tuple[int, int] | None:
    """The size in the xml, unless it is missing, malformed or zero, as some tools leave it."""
    sides: Iterable[str] = (tree.findtext(f"size/{key}") or "" for key in ("height", "width"))
    try:
        height, width = (int(side) for side in sides)
    except ValueError:
        return None
    return (height, width) if height > 0 and width > 0 else None
