"""What a run says before its first epoch: what it learns from, where it starts, and where it writes."""

from __future__ import annotations

from edgedet.data import BUILTIN, Dataset
from edgedet.data.dataset import UNKNOWN_CLASS, LeftOutClasses
from edgedet.errors import DataError
from edgedet.spec import Value

# A side of a box, in pixels of the input, below which nothing of an object is left to see.
SMALLEST_SIDE = 2
# So large a share of small boxes is a mistake rather than the far end of a scene.
_MOST_SMALL = 0.1


class SplitStart(Value):
    """One part of the data.

    Attributes:
        split: Its name; "all images" where there is none.
        images: Images that were not found unreadable so far.
        boxes: Boxes of the detector's classes; None for drawn images, whose boxes are known once drawn.
        left_out: Boxes of other classes.
        faults: Other things left out, counted by reason, with the first file names; "" for none.
        corrected: Annotations used in another form than written, in the same words.
    """

    split: str
    images: int
    boxes: int | None
    left_out: LeftOutClasses = LeftOutClasses()
    faults: str = ""
    corrected: str = ""

    @staticmethod
    def of(dataset: Dataset) -> SplitStart:
        """What an opened part holds."""
        split, summary = dataset.split or "all images", dataset.summary
        if dataset.format == BUILTIN:
            return SplitStart(split=split, images=summary.images, boxes=None)
        left_out, record = LeftOutClasses.of(summary.unknown_classes), summary.record()
        return SplitStart(
            split=split,
            images=summary.images,
            boxes=summary.boxes,
            left_out=left_out,
            faults=record.without(UNKNOWN_CLASS).left_out,
            corrected=record.corrected,
        )

    def __str__(self) -> str:
        boxes = "" if self.boxes is None else f", {self.boxes} boxes"
        return f"{self.split} ({self.images} images{boxes})"


class RunStart(Value):
    """A run that is ready for its next epoch.

    Attributes:
        data: Name of the data set's folder.
        training: What is learnt from.
        evaluation: What is measured on, if anything is.
        labels: The detector's classes.
        weights: Where the weights come from, in words.
        folder: Where the run is written.
        epochs: How many the run has.
        epochs_done: How many of them were done before, by the run that is resumed.
        warnings: Reasons why objects will hardly be learnt, each with a remedy.
    """

    data: str
    training: SplitStart
    evaluation: SplitStart | None
    labels: tuple[str, ...]
    weights: str
    folder: str
    epochs: int
    epochs_done: int = 0
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        measured = f"measuring on {self.evaluation}" if self.evaluation else "measuring on nothing"
        resumed = f" after {self.epochs_done}" if self.epochs_done else ""
        return (
            f"training on {self.data} {self.training}, {measured}; "
            f"{len(self.labels)} classes: {', '.join(self.labels)}; "
            f"{self.epochs} epochs{resumed} from {self.weights}; writing {self.folder}"
        )

    @property
    def left_out_lines(self) -> tuple[str, ...]:
        """A sentence for each kind of what is left out of each part."""
        parts = [part for part in (self.training, self.evaluation) if part is not None]
        found = [
            (part.split, sentence)
            for part in parts
            for sentence in (
                part.left_out.beside(part.boxes or 0, len(self.labels)),
                f"left out: {part.faults}" if part.faults else "",
                f"corrected: {part.corrected}" if part.corrected else "",
            )
        ]
        return tuple(f"{split}: {sentence}" for split, sentence in found if sentence)


def small_boxes(small: int, boxes: int, size_hw: tuple[int, int]) -> tuple[str, ...]:
    """A warning of boxes that are smaller than the detector can see; none where they are few.

    Args:
        small: Boxes with a side below `SMALLEST_SIDE` pixels of the input.
        boxes: All that were looked at.
        size_hw: Of the input.
    """
    if small <= _MOST_SMALL * boxes:
        return ()
    height, width = size_hw
    return (
        f"{small} of {boxes} boxes are narrower or lower than {SMALLEST_SIDE} pixels of the input of "
        f"{width}x{height}, and will hardly be learnt: train with a larger size_hw, or on parts of images",
    )


def check_images(dataset: Dataset) -> None:
    """Refuse to learn from less than half of the images that are listed.

    Raises:
        DataError: More images are lost than are left.
    """
    summary = dataset.summary
    if summary.lost_images > summary.images:
        raise DataError(
            f"most images of {dataset.root} cannot be used",
            got=f"{summary.lost_images} lost, {summary.images} left ({summary})",
            expected="at least half of the images that are listed",
            fix="mend what is named, or take it out of the lists",
        )


def check_boxes(dataset: Dataset) -> None:
    """Refuse to learn from images without a box of the detector's classes.

    Raises:
        DataError: There is none.
    """
    summary = dataset.summary
    if summary.boxes or dataset.format == BUILTIN:
        return
    others = LeftOutClasses.of(summary.unknown_classes).labels
    raise DataError(
        f"there is nothing to learn from {dataset.root}",
        got=f"boxes of {', '.join(others[:20])} only" if others else f"no boxes ({summary})",
        expected="boxes of " + ", ".join(dataset.labels[:20]),
        fix="set labels in [detector] of the configuration to the names in the annotations, or check --data",
    )
