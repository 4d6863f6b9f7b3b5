"""Rows of YOLO label files: a box, a polygon, or a box with the points of a pose.

Only the number of columns tells them apart, and a pose may have as many as a polygon. So a yaml that states
`kpt_shape` makes every long row a pose. Without it, a row that looks like a pose with visibilities is left
out. A pose without them is told from a polygon by many rows (`are_polygons`): poses have as many points each,
in a box that lies in the image; polygons read as poses mostly do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edgedet.data.dataset import Summary

BAD_ROW = "row that cannot be read"
CONFIDENCE = "row with a confidence or a track, which is not used"
POINTS = "row that is a polygon or a box with points in it, without kpt_shape"
TRIANGLE = "row that is a triangle or a box with a confidence and a track"
POSE = "row that looks like a pose, without kpt_shape"

_VISIBILITIES = (0.0, 1.0, 2.0)

# Points of a pose lie in its box, up to this share of the image's side.
_TOLERANCE = 0.02

# Points of a pose may be annotated outside its box, in fewer rows than this share.
_OUTLIERS = 0.25


@dataclass(frozen=True, slots=True)
class Keypoints:
    """The `kpt_shape` of a yaml: points of an object and numbers of a point (2, or 3 with its visibility)."""

    points: int
    numbers: int


def rows(
    text: str, where: str, keypoints: Keypoints | None, summary: Summary, *, polygons: bool
) -> Iterator[tuple[list[float], int]]:
    """Corners, as fractions of the image's sides, and class index of every row that can be read.

    Args:
        text: Of a label file.
        where: Its name.
        keypoints: As the yaml states them.
        summary: Counts the rows that are left out, and those of which a column is not used.
        polygons: Whether long rows are polygons, by `are_polygons`.
    """
    for number, line in enumerate(text.splitlines(), 1):
        if not (words := line.split()):
            continue
        detail = f"line {number}: {line[:80]}"
        index, values = _parsed(words)
        size = _box_and_more(values, keypoints)
        if index is None or size is None:
            summary.leave_out(BAD_ROW, where, detail)
        elif (doubt := _doubt(values, size, polygons=polygons)) is not None:
            summary.leave_out(doubt, where, detail)
        else:
            if size < 0:
                summary.correct(CONFIDENCE, where, detail)
            yield _corners(values if size > 4 else values[:4]), index


def are_polygons(texts: Iterable[str]) -> bool:
    """Whether the long rows of label files without `kpt_shape` are polygons, not boxes with points."""
    lengths, count, outside = set(), 0, 0
    for line in (line for text in texts for line in text.splitlines()):
        index, values = _parsed(line.split())
        size = _box_and_more(values, None)
        if index is None or size is None or size <= 4 or _doubt(values, size, polygons=True):
            continue
        lengths.add(size)
        count += 1
        outside += not (_is_box_in_image(values) and _has_points(values))
    return len(lengths) > 1 or outside > count * _OUTLIERS


def is_row(line: str) -> bool:
    """Whether a line could be one of a label file."""
    index, values = _parsed(line.split())
    return index is not None and len(values) >= 4 and all(abs(value) <= 2 for value in values[:4])


def _parsed(words: list[str]) -> tuple[int | None, list[float]]:
    try:
        index, values = float(words[0]), [float(word) for word in words[1:]]
    except (ValueError, IndexError):
        return None, []
    return (int(index), values) if index.is_integer() and index >= 0 else (None, values)


def _box_and_more(values: list[float], keypoints: Keypoints | None) -> int | None:
    """How a row is read: 4 a box, more a polygon of so many numbers, -1 a box before what is not used."""
    count = len(values)
    if count == 4:
        return 4
    if keypoints is not None:
        pose = 4 + keypoints.points * keypoints.numbers
        return 4 if count == pose else -1 if count in (5, pose + 1) else None
    if count == 5:
        return -1 if math.isfinite(values[4]) and values[4] >= 0 else None
    if count > 4 and not all(map(math.isfinite, values)):
        return None
    if count == 6 and values[5] > 1 and values[5].is_integer() and 0 <= values[4] <= 1:
        return -1
    if count >= 6 and count % 2 == 0:
        return count
    return len(values) if _looks_like_pose(values) else None


def _doubt(values: list[float], size: int, *, polygons: bool) -> str | None:
    """Why a row of more than a box could be two things, None where it is one."""
    if size <= 4:
        return None
    if _looks_like_pose(values):
        return POSE
    if size == 6 and values[5] in (0, 1) and 0 <= values[4] <= 1 and _is_box_in_image(values):
        return TRIANGLE
    return None if polygons else POINTS


def _is_box_in_image(values: list[float]) -> bool:
    x, y, width, height = values[:4]
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    inside = min(left, top) >= -_TOLERANCE and max(right, bottom) <= 1 + _TOLERANCE
    return inside and min(width, height) > 0


def _has_points(values: list[float]) -> bool:
    """A box, then points of two numbers in it; a point of zeros is one that is not annotated."""
    points = list(zip(values[4::2], values[5::2], strict=True))
    return all(point == (0, 0) or _is_inside(*point, values) for point in points)


def _is_inside(x: float, y: float, box: list[float]) -> bool:
    return abs(x - box[0]) <= box[2] / 2 + _TOLERANCE and abs(y - box[1]) <= box[3] / 2 + _TOLERANCE


def _looks_like_pose(values: list[float]) -> bool:
    """A box, then points in it, each with a visibility of 0, 1 or 2."""
    points = values[4:]
    if not points or len(points) % 3 or any(value not in _VISIBILITIES for value in points[2::3]):
        return False
    visible = zip(points[0::3], points[1::3], points[2::3], strict=True)
    return all(not visibility or _is_inside(x, y, values) for x, y, visibility in visible)


def _corners(values: list[float]) -> list[float]:
    if len(values) > 4:
        xs, ys = values[0::2], values[1::2]
        return [min(xs), min(ys), max(xs), max(ys)]
    x, y, width, height = values
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
