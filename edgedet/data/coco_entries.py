"""Values of a COCO json as tools write them: ids as text or 1.0, boxes as texts or objects, polygons."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

POLYGON_BOX = "box taken from its polygon"

_WHOLE = re.compile(r"\s*(-?(?:0|[1-9]\d{0,17}))(?:\.0*)?\s*")

# The keys of a box that is an object: a corner and the sides, or two corners.
_SIDES = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height"))
_CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"))


def whole_number(value: object) -> int | None:
    """A whole number that is written as 1, 1.0 or "1", else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        match = _WHOLE.fullmatch(value)
        return int(match[1]) if match else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) else None


def identifier(value: object) -> int | str | None:
    """An id that is the same for 1, 1.0 and "1"; other text is an id as it stands, anything else none."""
    number = whole_number(value)
    return number if number is not None else value if isinstance(value, str) else None


def flag(value: object) -> bool:
    """Whether `iscrowd` is set: 0, "0", "false" and nothing are not."""
    if isinstance(value, str):
        return value.strip().casefold() not in ("", "0", "0.0", "false", "no")
    return bool(value)


def stated_size(entry: dict[str, Any]) -> tuple[int, int] | None:
    """Height and width of an image as its entry states them, if it does."""
    height, width = whole_number(entry.get("height")), whole_number(entry.get("width"))
    return (height, width) if height and width else None


def corners_of(annotation: dict[str, Any]) -> tuple[list[object], bool]:
    """The corners of an annotation's box.

    Returns:
        x1, y1, x2, y2, or what was found instead of a box, for the message; and whether the box is the one
        around the polygon, which counts where there is no other or one without area.
    """
    corners = _box(annotation.get("bbox"))
    if corners is not None and corners[2] > corners[0] and corners[3] > corners[1]:
        return [*corners], False
    around = _around(annotation.get("segmentation"))
    if around is not None:
        return [*around], True
    return [annotation.get("bbox")] if corners is None else [*corners], False


def _box(bbox: object) -> list[float] | None:
    bbox = _parsed(bbox)
    if isinstance(bbox, dict):
        for keys in _CORNERS:
            if all(key in bbox for key in keys):
                return _numbers([bbox[key] for key in keys])
        sides = [keys for keys in _SIDES if all(key in bbox for key in keys)]
        bbox = [bbox[key] for key in sides[0]] if sides else None
    if not isinstance(bbox, list) or len(bbox) != 4 or (values := _numbers(bbox)) is None:
        return None
    x, y, width, height = values
    return [x, y, x + width, y + height]


def _around(segmentation: object) -> list[float] | None:
    """The box around polygons; None for run lengths and for what has no area."""
    segmentation = _parsed(segmentation)
    values = _numbers(list(_flat(segmentation))) if isinstance(segmentation, list) else None
    if values is None or len(values) < 6 or len(values) % 2:
        return None
    xs, ys = values[0::2], values[1::2]
    box = [min(xs), min(ys), max(xs), max(ys)]
    return box if box[2] > box[0] and box[3] > box[1] else None


def _parsed(value: object) -> object:
    """A value that is written as text, as tables keep lists: "[1, 2, 3, 4]" or "1, 2, 3, 4"."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    try:
        parsed: object = json.loads(text if text.startswith(("[", "{")) else f"[{text}]")
    except (ValueError, RecursionError):
        return None
    return parsed


def _flat(values: list[Any]) -> Iterator[object]:
    """Numbers of lists in lists, three deep at most: polygons, rings, points."""
    for value in values:
        if isinstance(value, list):
            for inner in value:
                yield from inner if isinstance(inner, list) else (inner,)
        else:
            yield value


def _numbers(values: list[Any]) -> list[float] | None:
    numbers = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        try:
            numbers.append(float(value))
        except (ValueError, OverflowError):
            return None
    return numbers if all(map(math.isfinite, numbers)) else None
