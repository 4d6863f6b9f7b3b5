"""Labelled images, read one at a time, and the count of what was wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgedet.boxes import Floats, Ints
from edgedet.errors import DataError
from edgedet.preprocess import Image
from edgedet.spec import Value
from edgedet.text import printable

# File names that a summary gives for each reason; the rest is only counted.
_EXAMPLES = 3

# How a caller asks for a data set without its splits.
ALL_IMAGES = 'leave --split out; to train, set train = "" and evaluate = "" in [data] of the configuration'

# Labels that a sentence about left-out classes gives; the rest is only counted.
_NAMED_CLASSES = 10


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImage:
    """One image with its ground truth.

    Attributes:
        image_id: Unique in the data set: the path relative to its root, with forward slashes.
        path: The file.
        image_bgr: uint8 `[h, w, 3]`.
        boxes_xyxy: float32 `[n, 4]`, clipped to the image, none empty.
        class_ids: int64 `[n]`.
        ignore: bool `[n]`: crowds and difficult objects, which count neither as found nor as missed.
        areas: float64 `[n]`, square pixels of the objects where the data set states them, as COCO does for
            masks; None where the areas of the boxes are all that is known.
    """

    image_id: str
    path: Path
    image_bgr: Image
    boxes_xyxy: Floats
    class_ids: Ints
    ignore: NDArray[np.bool_]
    areas: NDArray[np.float64] | None = None


class LeftOutClasses(Value):
    """Ground truth of classes that a detector does not know, against which nothing is measured or learnt.

    Attributes:
        boxes: How many boxes, crowds and difficult ones left out.
        labels: Their classes, those with the most boxes first.
    """

    boxes: int = 0
    labels: tuple[str, ...] = ()

    @staticmethod
    def of(counts: Counter[str]) -> LeftOutClasses:
        """The value of boxes counted by label."""
        return LeftOutClasses(
            boxes=counts.total(), labels=tuple(label for label, count in counts.most_common() if count)
        )

    def beside(self, boxes: int, classes: int) -> str:
        """One sentence for readers, "" where nothing is left out.

        Args:
            boxes: Boxes of the detector's classes.
            classes: How many classes the detector has.
        """
        if not self.boxes:
            return ""
        named, more = self.labels[:_NAMED_CLASSES], len(self.labels) - _NAMED_CLASSES
        return (
            f"{boxes} of {boxes + self.boxes} boxes are of the detector's {classes} classes; "
            f"{self.boxes} of {len(self.labels)} other classes are left out: {', '.join(named)}"
            + (f" and {more} more" if more > 0 else "")
        )


OUTSIDE = "path that leaves the data set"
UNKNOWN_CLASS = "box of an unknown class"


class SummaryRecord(Value):
    """What `Summary` counted, as it is written into reports; fields are those of `Summary`."""

    images: int
    boxes: int
    lost_images: int
    problems: dict[str, int]
    examples: dict[str, tuple[str, ...]]
    corrections: dict[str, int] = Field(default_factory=dict)

    def without(self, reason: str) -> SummaryRecord:
        """The same but for one reason."""
        problems = {name: count for name, count in self.problems.items() if name != reason}
        return self.model_copy(update={"problems": problems})

    @property
    def left_out(self) -> str:
        """What was left out, with names of the first files, or ""."""
        return self._lines(self.problems)

    @property
    def corrected(self) -> str:
        """What was read otherwise than it is written, with names of the first files, or ""."""
        return self._lines(self.corrections)

    def _lines(self, counts: dict[str, int]) -> str:
        return ", ".join(f"{counts[reason]} × {reason}{self._named(reason)}" for reason in sorted(counts))

    def _named(self, reason: str) -> str:
        names = self.examples.get(reason, ())
        return f" ({', '.join(names)})" if names else ""


@dataclass(slots=True)
class Summary:
    """What a data set holds and what was left out of it, by reason.

    Attributes:
        images: Images that are listed and were not found unreadable so far.
        boxes: Their boxes.
        lost_images: Images that are listed and are missing, unreadable or without a readable annotation: a
            measurement over the others is not one of the whole data set.
        problems: How often each reason left something out; a reason is a noun in the singular.
        examples: Names of the first files for each reason.
        corrections: How often each reason made a reader use something otherwise than it is written.
        unknown_classes: Boxes left out because their class is none of the labels, by its name.
        strict: Raise instead of leaving out.
    """

    images: int = 0
    boxes: int = 0
    lost_images: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    corrections: Counter[str] = field(default_factory=Counter)
    unknown_classes: Counter[str] = field(default_factory=Counter)
    strict: bool = False

    def leave_out(self, reason: str, where: str, detail: str = "", *, image: bool = False) -> None:
        """Count something that is left out.

        Args:
            reason: What it is, in the singular: "box without area".
            where: The file that it is in.
            detail: What was found there, for the error of a strict reader.
            image: It is one of `lost_images`.

        Raises:
            DataError: The data set is read strictly.
        """
        self._note(reason, where, detail)
        self.problems[reason] += 1
        self.lost_images += image

    def correct(self, reason: str, where: str, detail: str = "") -> None:
        """Count something that is used, but otherwise than it is written.

        Args:
            reason: What it is, in the singular: "box with swapped corners".
            where: The file that it is in.
            detail: What was found there, for the error of a strict reader.

        Raises:
            DataError: The data set is read strictly.
        """
        self._note(reason, where, detail)
        self.corrections[reason] += 1

    def _note(self, reason: str, where: str, detail: str) -> None:
        if self.strict:
            raise DataError(
                f"{printable(where)} has a fault",
                got=f"{reason}{': ' if detail else ''}{detail}",
                expected="a data set without faults, since it is read strictly",
                fix="mend or remove what is named, or read without strict",
            )
        names = self.examples.setdefault(reason, [])
        where = printable(where)
        if len(names) < _EXAMPLES and where not in names:
            names.append(where)

    def leave_out_unknown_class(self, label: str, where: str, *, ignore: bool = False) -> None:
        """Count a box whose class is none of the labels.

        Args:
            label: Its class as the data set calls it.
            where: The file that it is in.
            ignore: It is a crowd or a difficult object, which `unknown_classes` leaves out.

        Raises:
            DataError: The data set is read strictly.
        """
        self.leave_out(UNKNOWN_CLASS, where, repr(label)[:100])
        self.unknown_classes[printable(label)] += not ignore

    def record(self) -> SummaryRecord:
        """What was counted so far, as a value."""
        return SummaryRecord(
            images=self.images,
            boxes=self.boxes,
            lost_images=self.lost_images,
            problems=dict(sorted(self.problems.items())),
            examples={reason: tuple(names) for reason, names in sorted(self.examples.items())},
            corrections=dict(sorted(self.corrections.items())),
        )

    def __str__(self) -> str:
        text = f"{self.images} images, {self.boxes} boxes"
        record = self.record()
        text += f"; left out: {record.left_out}" if record.left_out else ""
        return text + (f"; corrected: {record.corrected}" if record.corrected else "")


class Dataset(Protocol):
    """What every reader returns: random access and streaming, one decoded image in memory at a time.

    Iteration skips images that cannot be read and counts them in `summary`; indexing raises `DataError` for
    them.
    """

    root: Path
    format: str
    split: str | None
    labels: tuple[str, ...]
    image_ids: Sequence[str]
    summary: Summary

    def __len__(self) -> int:
        """Images that are listed, readable or not."""

    def __getitem__(self, index: int) -> LabelledImage:
        """The image at an index; raises `DataError` naming the file when it cannot be read."""

    def __iter__(self) -> Iterator[LabelledImage]:
        """All readable images, in the order of `image_ids`."""


def no_such_split(root: Path, split: str, options: Sequence[str]) -> DataError:
    """The error of a split that a data set does not have.

    Args:
        root: Of the data set.
        split: What was asked for.
        options: The splits that there are.
    """
    if options:
        return DataError(
            f"{root} has no such split",
            got=split,
            expected=f"one of {', '.join(options)}",
            fix=f"choose one of those, join several with +, or use all images: {ALL_IMAGES}",
        )
    return DataError(
        f"{root} has no splits",
        got=f"split {split}",
        expected="no split, since its images are not divided",
        fix=f"use all images: {ALL_IMAGES}",
    )


def nothing_to(purpose: str, dataset: Dataset) -> DataError:
    """The error of a measurement that had no image to be made on.

    Args:
        purpose: What could not be done: "compare on".
        dataset: What was iterated over.
    """
    return DataError(
        f"there is nothing to {purpose}",
        got=f"{len(dataset)} listed images in {dataset.root}, none of them readable ({dataset.summary})",
        expected="at least one readable image",
        fix="check --data and --split",
    )


@dataclass(frozen=True, slots=True)
class Request:
    """What a reader is asked for.

    Attributes:
        path: A folder or a file.
        split: A part of the data set; all of it when None. Each reader says what names a part; `a+b` joins
        two.
        labels: The class names to use, in the order of a detector's class ids; the data set's own when None.
        strict: Raise at the first fault instead of leaving it out and counting it.
    """

    path: Path
    split: str | None = None
    labels: tuple[str, ...] | None = None
    strict: bool = False

    @property
    def splits(self) -> tuple[str, ...]:
        """The names that `split` joins; none for the whole data set."""
        return tuple(self.split.split("+")) if self.split else ()


@dataclass(frozen=True, slots=True)
class Reader:
    """One data format.

    Attributes:
        recognises: Whether a path looks like the format; cheap, and reads no image.
        read: Index the annotations; raises `DataError` when there is nothing to read.
        rank: Readers are asked in this order; a format that others contain comes later.
    """

    recognises: Callable[[Path], bool]
    read: Callable[[Request], Dataset]
    rank: int
