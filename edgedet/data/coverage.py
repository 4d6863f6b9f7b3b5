"""What a set of images shows of a detector's classes: whether it can stand for what the detector will see."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from edgedet.boxes import Floats
from edgedet.data.dataset import LabelledImage, LeftOutClasses
from edgedet.spec import Value

# Fewer images than this leave the extremes of a tensor to chance.
FEW_IMAGES = 16
# Steps of 255 by which the pixels of an image differ from their mean at least, where it shows something.
_LEAST_CONTRAST = 2.0


class Coverage(Value):
    """Images, boxes and classes that were seen.

    Attributes:
        images: How many images.
        boxes: Boxes of the detector's classes, crowds and difficult ones left out; None without labels.
        classes: How many of them each of the detector's classes has, in the detector's order.
        left_out: Boxes of other classes.
        empty: Images that show one colour.
        repeated: Images that are equal to another one, as the detector reads them.
    """

    images: int
    boxes: int | None = None
    classes: dict[str, int] = Field(default_factory=dict)
    left_out: LeftOutClasses = LeftOutClasses()
    empty: int = 0
    repeated: int = 0

    @property
    def unseen(self) -> tuple[str, ...]:
        """The detector's classes of which there was no box; none where there are no labels."""
        return tuple(label for label, count in self.classes.items() if not count)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each reason to doubt that the images were enough."""
        found = []
        if self.images < FEW_IMAGES:
            found.append(
                f"calibrated on {self._images}: with fewer than {FEW_IMAGES}, ranges are left to chance"
            )
        if 2 * (self.empty + self.repeated) > self.images:
            found.append(
                f"of {self.images} calibration images, {self.empty} show one colour and {self.repeated} are "
                "copies of others; their ranges will not fit real images: calibrate with images as in use"
            )
        if self.unseen:
            found.append(f"the calibration images show none of these classes: {', '.join(self.unseen)}")
        return tuple(found)

    def __str__(self) -> str:
        if self.boxes is None:
            return f"{self._images}, no labels"
        classes = ", ".join(f"{label} {count}" for label, count in self.classes.items())
        others = f"; {self.left_out.boxes} of other classes" if self.left_out.boxes else ""
        return f"{self._images}, {self.boxes} boxes: {classes}{others}"

    @property
    def _images(self) -> str:
        return f"{self.images} image{'' if self.images == 1 else 's'}"


class CoverageCounter:
    """Counts images one at a time.

    Args:
        data_labels: Names of the classes of the images, by class id; none where they carry no labels.
        labels: Those of the detector.
    """

    def __init__(self, data_labels: Sequence[str], labels: Sequence[str]) -> None:
        self._data_labels, self._labels = tuple(data_labels), tuple(labels)
        self._images, self._empty = 0, 0
        self._different: set[bytes] = set()
        self._boxes: Counter[str] = Counter()

    def add(self, image: LabelledImage, pixels: Floats) -> None:
        """Count one image.

        Args:
            image: Its labels; its own pixels are not looked at.
            pixels: As the detector reads them, `[3, h, w]` in steps of 255, without the bars of a letterbox.
        """
        self._images += 1
        if pixels.std(axis=(1, 2)).max() < _LEAST_CONTRAST:
            self._empty += 1
        else:
            self._different.add(hashlib.sha256(np.ascontiguousarray(pixels).data).digest())
        self._boxes.update(self._data_labels[class_id] for class_id in image.class_ids[~image.ignore])

    def coverage(self) -> Coverage:
        """What was counted."""
        repeated = self._images - self._empty - len(self._different)
        shown = Coverage(images=self._images, empty=self._empty, repeated=repeated)
        if not self._data_labels:
            return shown
        classes = {label: self._boxes[label] for label in self._labels}
        others = Counter({label: n for label, n in self._boxes.items() if label not in classes})
        counts = {
            "boxes": sum(classes.values()),
            "classes": classes,
            "left_out": LeftOutClasses.of(others),
        }
        return shown.model_copy(update=counts)
