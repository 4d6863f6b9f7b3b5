"""The worst images of a parity run, drawn for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edgedet.data.dataset import Dataset
from edgedet.errors import DataError
from edgedet.parity.report import Box, ComparedImage, ComparedObject, ParityReport, ParityRow
from edgedet.preprocess import Image
from edgedet.report.draw import draw_comparison

# Large enough to read a plate; with 18 pictures a page has less than 2 MB and can be mailed.
_WIDTHS = (480, 800)
_MOST_BYTES = 64_000
_JPEG_QUALITIES = (82, 70, 58, 46)
_SMALLER = 0.75
_FOR_A_ROW = 3

# A plate shows two digits of a score, and a line is a pixel wide.
_VISIBLE_SCORE, _VISIBLE_PX = 0.01, 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One picture of a page.

    Attributes:
        title: What was compared.
        caption: What can be seen.
        jpeg: The encoded image.
        size_hw: Its size.
    """

    title: str
    caption: str
    jpeg: bytes
    size_hw: tuple[int, int]


def comparison_pictures(report: ParityReport, dataset: Dataset, limit: int = 18) -> tuple[Picture, ...]:
    """The worst images of every row in which an eye can see a difference, those that failed first.

    Three of a row at most. Where there is no such row, one picture shows what all of them detect.

    Args:
        report: Of a run over that data set.
        dataset: Where the images are; one that is no longer there or no longer readable is left out.
        limit: Most pictures.
    """
    places = {image_id: index for index, image_id in enumerate(dataset.image_ids)}
    rows = sorted(report.rows, key=lambda row: (row.passed, -(row.lost + row.gained)))
    differing = [row for row in rows if looks_different(row)]
    each = min(_FOR_A_ROW, max(1, limit // max(len(differing), 1)))
    wanted = [(row, image) for row in differing for image in _visible(row)[:each]]
    alike = [(row, row.worst_images[0]) for row in rows if row.worst_images]
    pictures: list[Picture] = []
    for row, worst in wanted or alike[:1]:
        if len(pictures) == limit or worst.image_id not in places:
            continue
        try:
            image = dataset[places[worst.image_id]].image_bgr
        except DataError:
            continue
        pictures.append(_picture(row, worst, image, [c.label for c in row.classes]))
    return tuple(pictures)


def looks_different(row: ParityRow) -> bool:
    """Whether one of the worst images of an artifact, drawn beside PyTorch's, would look different."""
    return bool(_visible(row))


def _visible(row: ParityRow) -> list[ComparedImage]:
    return [image for image in row.worst_images if _differs_visibly(image)]


def _differs_visibly(worst: ComparedImage) -> bool:
    return (
        any(thing.outcome != "matched" for thing in worst.objects)
        or worst.max_score_delta >= _VISIBLE_SCORE
        or worst.max_box_px >= _VISIBLE_PX
    )


def _picture(row: ParityRow, worst: ComparedImage, image: Image, labels: Sequence[str]) -> Picture:
    width = min(max(image.shape[1], _WIDTHS[0]), _WIDTHS[1])
    while True:
        drawn = _drawn(worst, image, labels, width)
        for quality in _JPEG_QUALITIES:
            _, encoded = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, quality])
            if len(encoded) <= _MOST_BYTES:
                return Picture(row.name, _caption(worst), encoded.tobytes(), (drawn.shape[0], drawn.shape[1]))
        width = round(width * _SMALLER)


def _drawn(worst: ComparedImage, image: Image, labels: Sequence[str], width: int) -> Image:
    """The comparison on the image, at that width."""
    scale = width / image.shape[1]
    shape = (width, max(1, round(image.shape[0] * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = np.asarray(cv2.resize(image, shape, interpolation=interpolation), np.uint8)
    scaled = worst.model_copy(update={"objects": tuple(_scaled(thing, scale) for thing in worst.objects)})
    return draw_comparison(resized, scaled, labels)


def _caption(worst: ComparedImage) -> str:
    shared = sum(thing.outcome == "matched" for thing in worst.objects)
    parts = [f"{shared} the same"]
    parts += [f"{count} {what}" for count, what in ((worst.lost, "lost"), (worst.gained, "gained")) if count]
    if excused := sum(thing.outcome == "excused" for thing in worst.objects):
        parts.append(f"{excused} at the threshold on one side only")
    return f"{worst.image_id}: {', '.join(parts)}; scores within {worst.max_score_delta:.2g}"


def _scaled(thing: ComparedObject, scale: float) -> ComparedObject:
    return thing.model_copy(
        update={
            "box_xyxy": _scaled_box(thing.box_xyxy, scale),
            "reference_box_xyxy": _scaled_box(thing.reference_box_xyxy, scale),
        }
    )


def _scaled_box(box: Box | None, scale: float) -> Box | None:
    if box is None:
        return None
    left, top, right, bottom = box
    return left * scale, top * scale, right * scale, bottom * scale
