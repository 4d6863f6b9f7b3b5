"""Labelled images, read one at a time, and the count of what was wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgedet.boxes import Floats, Ints
from edgedet.preprocess import Image


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
    """

    image_id: str
    path: Path
    image_bgr: Image
    boxes_xyxy: Floats
    class_ids: Ints
    ignore: NDArray[np.bool_]


@dataclass(slots=True)
class Summary:
    """What a data set holds and what was left out of it, by reason."""

    images: int = 0
    boxes: int = 0
    problems: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        text = f"{self.images} images, {self.boxes} boxes"
        if self.problems:
            text += "; left out: " + ", ".join(f"{n} {what}" for what, n in sorted(self.problems.items()))
        return text


class Dataset(Protocol):
    """What every reader returns: random access and streaming, one decoded image in memory at a time.

    Iteration skips images that cannot be read and counts them in `summary`; indexing raises `DataError` for them.
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
