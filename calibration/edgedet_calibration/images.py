"""Calibration images as input tensors, each decoded and preprocessed once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from edgedet.data import Dataset, LabelledImage
from edgedet.errors import DataError
from edgedet.preprocess import Geometry, preprocess
from edgedet.progress import Track, silent
from edgedet.spec import InputSpec

# Equalization and corrections settle with few images, each of which gives thousands of positions.
LOOKED_AT_AGAIN = 32
_Seen = tuple[LabelledImage, Tensor, Geometry]
_NO_PIXELS = np.empty((0, 0, 3), np.uint8)


def calibration_images(dataset: Dataset, count: int) -> Iterator[LabelledImage]:
    """Up to `count` readable images, evenly spaced over the data set: the same ones every time."""
    for index in spaced(len(dataset), count):
        try:
            yield dataset[index]
        except DataError:
            continue  # counted in the data set's summary


class CalibrationImages:
    """The images that one calibration looks at.

    The 32 that it looks at more than once are kept as tensors; memory does not grow with the others.

    Args:
        dataset: Where they are; they need no labels.
        spec: The input of the detector.
        count: How many to take of it, evenly spaced.

    Attributes:
        dataset: Where they are.
    """

    def __init__(self, dataset: Dataset, spec: InputSpec, count: int) -> None:
        self.dataset, self._spec = dataset, spec
        self._indices = spaced(len(dataset), count)
        self._again = [self._indices[i] for i in spaced(len(self._indices), LOOKED_AT_AGAIN)]
        self._kept: dict[int, _Seen | None] = {}

    def __len__(self) -> int:
        """How many, readable or not."""
        return len(self._indices)

    def __iter__(self) -> Iterator[_Seen]:
        """Each readable image, without its pixels if it is kept, its tensor `[1, 3, h, w]` and geometry."""
        kept = frozenset(self._again)
        for index in self._indices:
            found = self._kept_one(index) if index in kept else self._read(index)
            if found is not None:
                yield found

    def again(self, track: Track = silent) -> list[Tensor]:
        """The tensors of those that are kept, up to 32, evenly spaced."""
        found = [self._kept_one(index) for index in track(self._again, "Reading images", len(self._again))]
        return [one[1] for one in found if one is not None]

    def _kept_one(self, index: int) -> _Seen | None:
        if index not in self._kept:
            found = self._read(index)
            self._kept[index] = found and (replace(found[0], image_bgr=_NO_PIXELS), *found[1:])
        return self._kept[index]

    def _read(self, index: int) -> _Seen | None:
        try:
            image = self.dataset[index]
        except DataError:
            return None  # counted in the data set's summary
        tensor, geometry = preprocess(image.image_bgr, self._spec)
        return image, torch.from_numpy(tensor), geometry


def spaced(length: int, count: int) -> list[int]:
    """Up to `count` of so many places, evenly spaced."""
    step = max(length / count, 1.0)
    return [int(place * step) for place in range(min(length, count))]
