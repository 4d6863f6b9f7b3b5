"""Boxes and label plates on an image."""

from __future__ import annotations

import colorsys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edgedet.detections import Detections
from edgedet.parity.report import Box, ComparedImage, ComparedObject
from edgedet.preprocess import Image

Bgr = tuple[int, int, int]

LOST: Bgr = (54, 56, 229)
GAINED: Bgr = (24, 196, 255)
EXCUSED: Bgr = (160, 160, 160)

# Hues are a golden angle apart: neighbours in the list of classes are never alike, however many there are.
_GOLDEN_ANGLE = 0.618034
_FIRST_HUE = 0.6

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def class_colour(class_id: int) -> Bgr:
    """The colour of a class, the same in every picture."""
    hue = (_FIRST_HUE + class_id * _GOLDEN_ANGLE) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.72, 0.94)
    return round(255 * blue), round(255 * green), round(255 * red)


def draw_detections(image_bgr: Image, detections: Detections, labels: Sequence[str]) -> Image:
    """A copy of the image with a box and a plate, label and score, for every detection; the best on top.

    Args:
        image_bgr: uint8 `[h, w, 3]`.
        detections: In pixels of the image.
        labels: Names of the classes, by class id.
    """
    order = np.argsort(detections.scores, kind="stable")
    marks = [
        _Mark(
            _box(detections.boxes_xyxy[index].tolist()),
            class_colour(int(detections.class_ids[index])),
            f"{labels[detections.class_ids[index]]} {detections.scores[index]:.2f}",
        )
        for index in order
    ]
    return _draw(image_bgr, marks)


def draw_comparison(image_bgr: Image, compared: ComparedImage, labels: Sequence[str]) -> Image:
    """A copy of the image with what two detectors see: lost objects red, gained yellow, shared thin.

    Shared objects have plates with both scores where there is nothing else to point at. Objects that may be
    missing on one side, because their score is at the threshold, are grey.

    Args:
        image_bgr: uint8 `[h, w, 3]`.
        compared: The image as a parity report holds it.
        labels: Names of the classes; those unknown to it are drawn in the first colour.
    """
    ids = {label: class_id for class_id, label in enumerate(labels)}
    equal = compared.lost == compared.gained == 0
    rank = {"matched": 0, "excused": 1, "gained": 2, "lost": 3}
    objects = sorted(compared.objects, key=lambda thing: rank[thing.outcome])
    return _draw(image_bgr, [_compared_mark(thing, ids.get(thing.label, 0), equal) for thing in objects])


@dataclass(frozen=True, slots=True)
class _Mark:
    """One box; without text it has no plate."""

    box_xyxy: Box
    colour: Bgr
    text: str = ""
    bold: bool = False


def _compared_mark(thing: ComparedObject, class_id: int, equal: bool) -> _Mark:
    box = thing.box_xyxy or thing.reference_box_xyxy or (0.0, 0.0, 0.0, 0.0)
    if thing.outcome == "matched":
        text = f"{thing.label} {thing.reference_score:.2f}/{thing.score:.2f}" if equal else ""
        return _Mark(box, class_colour(class_id), text)
    if thing.outcome == "lost":
        return _Mark(box, LOST, f"lost {thing.label} {thing.reference_score:.2f}", bold=True)
    if thing.outcome == "gained":
        return _Mark(box, GAINED, f"gained {thing.label} {thing.score:.2f}", bold=True)
    return _Mark(box, EXCUSED)


def _draw(image_bgr: Image, marks: Sequence[_Mark]) -> Image:
    """All boxes first, so that none runs through a plate; plates of the last marks are placed first."""
    canvas = np.ascontiguousarray(image_bgr).copy()
    side = min(canvas.shape[:2])
    line = max(1, round(side / 260))
    for mark in marks:
        left, top, right, bottom = _corners(mark.box_xyxy, canvas)
        thickness = line + 1 if mark.bold else line
        cv2.rectangle(canvas, (left, top), (right, bottom), mark.colour, thickness, cv2.LINE_8)
    scale = min(max(side / 900, 0.36), 0.9)
    plates: list[_Plate] = []
    for mark in reversed(marks):
        if mark.text:
            plates.append(_placed(mark, canvas, scale, plates))
    for plate in reversed(plates):
        _draw_plate(canvas, plate, scale)
    return canvas


@dataclass(frozen=True, slots=True)
class _Plate:
    """A label with its place in whole pixels."""

    text: str
    colour: Bgr
    left: int
    top: int
    right: int
    bottom: int
    baseline: int

    def overlaps(self, other: _Plate) -> bool:
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)


def _placed(mark: _Mark, canvas: Image, scale: float, taken: Sequence[_Plate]) -> _Plate:
    """Above the box, below it, inside at its top or bottom: the first that is in the image and free."""
    text = _printable(mark.text)
    (text_width, text_height), descent = cv2.getTextSize(text, _FONT, scale, 1)
    pad = max(2, round(3 * scale))
    width, height = text_width + 2 * pad, text_height + descent + 2 * pad
    left, top, _, bottom = _corners(mark.box_xyxy, canvas)
    start = max(0, min(left, canvas.shape[1] - width))
    plates = [
        _Plate(text, mark.colour, start, y, start + width, y + height, y + height - descent - pad)
        for y in (top - height, bottom + 1, top, bottom - height)
        if 0 <= y <= canvas.shape[0] - height
    ]
    if not plates:  # an image that is lower than a plate
        plates = [_Plate(text, mark.colour, start, 0, start + width, height, height - descent - pad)]
    return next((plate for plate in plates if not any(map(plate.overlaps, taken))), plates[0])


def _draw_plate(canvas: Image, plate: _Plate, scale: float) -> None:
    ink = (20, 20, 20) if _luminance(plate.colour) > 0.45 else (255, 255, 255)
    corners = (plate.left, plate.top), (plate.right, plate.bottom - 1)
    cv2.rectangle(canvas, *corners, plate.colour, cv2.FILLED)
    at = (plate.left + max(2, round(3 * scale)), plate.baseline)
    cv2.putText(canvas, plate.text, at, _FONT, scale, ink, 1, cv2.LINE_AA)


def _corners(box_xyxy: Box, canvas: Image) -> tuple[int, int, int, int]:
    """Whole pixels inside the image; the far corner is the last pixel, since boxes are half-open."""
    height, width = canvas.shape[:2]
    left, top, right, bottom = box_xyxy
    return (
        round(min(max(left, 0), width - 1)),
        round(min(max(top, 0), height - 1)),
        round(min(max(right - 1, 0), width - 1)),
        round(min(max(bottom - 1, 0), height - 1)),
    )


def _luminance(colour: Bgr) -> float:
    """Relative luminance 0..1 (ITU-R BT.709, without linearisation)."""
    blue, green, red = (value / 255 for value in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _printable(text: str) -> str:
    """OpenCV's fonts have ASCII only: accents go, other letters become question marks."""
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" else "?" for letter in plain)[:60]


def _box(values: Sequence[float]) -> Box:
    left, top, right, bottom = values
    return left, top, right, bottom
