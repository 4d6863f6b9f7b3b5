"""The built-in data set: drawn shapes with exact boxes, for trying everything without a download.

An image is drawn when it is asked for and is fixed by (seed, split, index), so that nothing is stored and the
splits share no image. With one version of OpenCV it is the same on every machine; between versions edges and
JPEG artefacts differ, and with them a box by a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edgedet.data.dataset import LabelledImage, Reader, Request, Summary
from edgedet.data.scenes import draw_scene
from edgedet.data.shapes import OUTLINES
from edgedet.errors import DataError

LABELS = tuple(OUTLINES)
SPLIT_SIZES = {"train": 2000, "val": 100, "test": 100}

# The part of the seed that tells the splits apart; the numbers are frozen with the images that they make.
_SPLIT_SEEDS = {"train": 1, "val": 2, "test": 3}
_DEFAULT_SPLIT = "test"


class SyntheticDataset:
    """The `Dataset` of drawn images.

    `path` and `image_id` of its images are names only: there are no files. `summary.boxes` counts what was
    drawn so far.

    Args:
        split: "train", "val" or "test", or several joined with +.
        labels: The class names to draw boxes for, in the order of their ids; by default all eight.
        seed: Another seed, other images.
        size: Images in each split; by default 2000, 100 and 100.

    Raises:
        DataError: There is no such split.
    """

    def __init__(
        self,
        split: str = _DEFAULT_SPLIT,
        labels: Sequence[str] | None = None,
        *,
        seed: int = 0,
        size: int | None = None,
    ) -> None:
        names = split.split("+")
        for name in names:
            if name not in SPLIT_SIZES:
                raise DataError(
                    f"the built-in data set has no split {name}",
                    got=name,
                    expected=f"one of {', '.join(SPLIT_SIZES)}",
                    fix="use one of those, or join several with +",
                )
        self.root = Path("builtin")
        self.format = "builtin"
        self.split: str | None = split
        self.labels = LABELS if labels is None else tuple(labels)
        self._seed = seed
        self._items = [(name, n) for name in dict.fromkeys(names) for n in range(size or SPLIT_SIZES[name])]
        self.image_ids: Sequence[str] = [f"{name}/{index:05d}" for name, index in self._items]
        self.summary = Summary(images=len(self._items))
        self._class_ids = np.array(
            [self.labels.index(x) if x in self.labels else -1 for x in LABELS], np.int64
        )
        self._drawn: set[int] = set()

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> LabelledImage:
        index = range(len(self))[index]
        split, number = self._items[index]
        scene = draw_scene(np.random.default_rng([self._seed, _SPLIT_SEEDS[split], number]))
        class_ids = self._class_ids[scene.class_ids]
        known = class_ids >= 0
        image_id = self.image_ids[index]
        if index not in self._drawn:
            self._drawn.add(index)
            self.summary.boxes += int(known.sum())
            for own_id in scene.class_ids[~known]:
                self.summary.leave_out_unknown_class(LABELS[own_id], image_id)
        return LabelledImage(
            image_id,
            self.root / image_id,
            scene.image_bgr,
            scene.boxes_xyxy[known],
            class_ids[known],
            np.zeros(int(known.sum()), bool),
        )

    def __iter__(self) -> Iterator[LabelledImage]:
        return (self[index] for index in range(len(self)))


def read(request: Request) -> SyntheticDataset:
    """The built-in data set; its split is "test" unless another is asked for."""
    return SyntheticDataset(request.split or _DEFAULT_SPLIT, request.labels)


def recognises(path: Path) -> bool:  # noqa: ARG001
    """Never: it is opened by its name, so that a folder of that name can be opened as a path."""
    return False


READER = Reader(recognises, read, rank=9)
