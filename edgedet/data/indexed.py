"""A data set whose annotations are in memory and whose images are decoded when they are asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgedet.boxes import Floats, Ints, clip
from edgedet.data.dataset import LabelledImage, Request, Summary
from edgedet.data.images import read_image
from edgedet.errors import DataError

# Past this a coordinate is as meaningless as an infinite one.
LARGEST_COORDINATE = 1e9
_LARGEST_AREA = LARGEST_COORDINATE**2

_Corners = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One image's annotation, before the image was seen.

    Attributes:
        image_id: As in `LabelledImage`.
        path: The file.
        boxes_xyxy: float32 `[n, 4]`, in pixels, or in fractions of the image's sides when `fractions`.
        class_ids: int64 `[n]`.
        ignore: bool `[n]`.
        areas: float64 `[n]`, as the annotation states them; NaN where it does not.
        fractions: The unit of the boxes.
        size_hw: The image's size as the annotation states it, if it does.
    """

    image_id: str
    path: Path
    boxes_xyxy: Floats
    class_ids: Ints
    ignore: NDArray[np.bool_]
    areas: NDArray[np.float64]
    fractions: bool = False
    size_hw: tuple[int, int] | None = None


class Objects:
    """The objects of one annotation, checked as they are added; what fails is left out and counted."""

    def __init__(self, summary: Summary, where: str) -> None:
        self._summary, self._where = summary, where
        self._boxes: list[_Corners] = []
        self._class_ids: list[int] = []
        self._known: set[tuple[_Corners | None, int | None]] = set()
        self._ignore: list[bool] = []
        self._areas: list[float] = []

    def add(
        self,
        corners: Sequence[object],
        class_id: int | None,
        name: object,
        *,
        ignore: bool = False,
        area: object = None,
    ) -> None:
        """Add one object.

        Args:
            corners: x1, y1, x2, y2 as they were found: numbers or their text.
            class_id: None when the class is unknown.
            name: How the data set calls the class, for the message.
            ignore: A crowd or a difficult object.
            area: Square pixels as the annotation states them; what is no such number counts as not stated.
        """
        box = _numbers(corners)
        if box is None:
            self._summary.leave_out(
                "box that is not four finite numbers", self._where, repr(list(corners))[:100]
            )
        elif class_id is None:
            self._summary.leave_out_unknown_class(str(name), self._where, ignore=ignore)
        elif box[2] <= box[0] or box[3] <= box[1]:
            self._summary.leave_out("box without area", self._where, f"{box}")
        else:
            self._boxes.append(box)
            self._class_ids.append(class_id)
            self._known.add((box, class_id))
            self._ignore.append(ignore)
            self._areas.append(_area(area))

    def has(self, corners: Sequence[object], class_id: int | None) -> bool:
        """Whether this very box was added before."""
        return (_numbers(corners), class_id) in self._known

    def record(
        self, image_id: str, path: Path, *, fractions: bool = False, size_hw: tuple[int, int] | None = None
    ) -> Record:
        """What was added, as the record of an image."""
        return Record(
            image_id,
            path,
            np.array(self._boxes, np.float32).reshape(-1, 4),
            np.array(self._class_ids, np.int64),
            np.array(self._ignore, bool),
            np.array(self._areas, np.float64),
            fractions,
            size_hw,
        )


class IndexedDataset:
    """The `Dataset` of every format that is read from disk.

    Args:
        request: What was asked for.
        root: The folder that image ids are relative to.
        data_format: The reader's name.
        labels: Names of the classes, by class id.
        records: The annotations.
        summary: What was left out so far; it grows when images turn out to be unreadable.

    Raises:
        DataError: There are no records.
    """

    def __init__(
        self,
        request: Request,
        root: Path,
        data_format: str,
        labels: tuple[str, ...],
        records: Sequence[Record],
        summary: Summary,
    ) -> None:
        if not records:
            raise DataError(
                f"{request.path} holds no usable image"
                + (f" in split {request.split}" if request.split else ""),
                got=str(summary),
                expected="at least one image that is there and annotated",
                fix="check the folder and the split, and mend what is listed as left out",
            )
        self.root = root
        self.format = data_format
        self.split = request.split
        self.labels = labels
        self.image_ids: Sequence[str] = [record.image_id for record in records]
        self.summary = summary
        summary.images = len(records)
        summary.boxes = sum(len(record.boxes_xyxy) for record in records)
        self._records = records
        self._counted: set[int] = set()

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> LabelledImage:
        index = range(len(self))[index]  # IndexError and negative indices, as in a list
        record = self._records[index]
        first_time = index not in self._counted
        self._counted.add(index)
        try:
            image = read_image(record.path)
            _check_size(record, (image.shape[0], image.shape[1]))
        except DataError as exc:
            if first_time:
                self.summary.images -= 1
                self.summary.boxes -= len(record.boxes_xyxy)
                if not self.summary.strict:
                    self.summary.leave_out("image that cannot be used", record.image_id, exc.got, image=True)
            raise
        height, width = image.shape[:2]
        boxes = record.boxes_xyxy
        if record.fractions:
            boxes = boxes * np.array([width, height, width, height], np.float32)
        boxes = clip(boxes, (height, width))
        keep = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        if first_time:
            for box in record.boxes_xyxy[~keep]:
                self.summary.boxes -= 1
                self.summary.leave_out("box outside the image", record.image_id, f"{box.tolist()}")
        return LabelledImage(
            record.image_id,
            record.path,
            image,
            boxes[keep],
            record.class_ids[keep],
            record.ignore[keep],
            _areas_of(boxes[keep], record.areas[keep]),
        )

    def __iter__(self) -> Iterator[LabelledImage]:
        for index in range(len(self)):
            try:
                item = self[index]
            except DataError:
                if self.summary.strict:
                    raise
                continue
            yield item


def relative_inside(root: Path, path: Path) -> str | None:
    """`path` relative to `root`, with forward slashes; None where it leaves `root`, be it through a link.

    `..` after a link leads where the system follows it: to the parent of what is linked.
    """
    try:
        real, real_root = path.resolve(), root.resolve()
    except RuntimeError:  # links in a circle
        return None
    if not real.is_relative_to(real_root):
        return None
    if path.is_relative_to(root):
        written = path.relative_to(root)
        if ".." not in written.parts:
            return written.as_posix()
        shorter = Path(os.path.normpath(written))
        if ".." not in shorter.parts and (root / shorter).resolve() == real:
            return shorter.as_posix()
    return real.relative_to(real_root).as_posix()


def _numbers(values: Sequence[object]) -> _Corners | None:
    try:
        x1, y1, x2, y2 = (float(value) for value in values)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    box = (x1, y1, x2, y2)
    return box if all(math.isfinite(x) and abs(x) < LARGEST_COORDINATE for x in box) else None


def _area(stated: object) -> float:
    """A stated area, or NaN."""
    if isinstance(stated, bool) or not isinstance(stated, int | float):
        return math.nan
    return float(stated) if 0 <= stated < _LARGEST_AREA else math.nan


def _areas_of(boxes_xyxy: Floats, stated: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Stated areas, with those of the boxes where none is stated; None where none is."""
    unknown = np.isnan(stated)
    if unknown.all():
        return None
    sides = boxes_xyxy[:, 2:].astype(np.float64) - boxes_xyxy[:, :2]
    return np.where(unknown, sides.prod(axis=1), stated)


def _check_size(record: Record, size_hw: tuple[int, int]) -> None:
    if record.size_hw is not None and record.size_hw != size_hw:
        raise DataError(
            f"the boxes of {record.path} were drawn on another image",
            got=f"{size_hw[1]}x{size_hw[0]} pixels",
            expected=f"{record.size_hw[1]}x{record.size_hw[0]}, as its annotation says",
            fix="put the original image back, or annotate this one; boxes do not fit a resized copy",
        )
