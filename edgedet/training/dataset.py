"""Training samples: an augmented image as an input tensor, and what the network should say of it.

A sample is a function of (seed, epoch, index) alone, whatever the number of workers and processes, so that a
run that was interrupted goes on exactly as it would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from edgedet.boxes import Floats, Ints, clip
from edgedet.data import Dataset
from edgedet.data.dataset import LabelledImage
from edgedet.errors import DataError
from edgedet.preprocess import Geometry, preprocess
from edgedet.progress import Track, silent
from edgedet.spec import DetectorSpec
from edgedet.training.augmentation import Augmentation
from edgedet.training.config import AugmentationConfig, TrainConfig
from edgedet.training.distributed import Group
from edgedet.training.targets import TargetEncoder

# Boxes below this many pixels of the input tensor teach nothing and make log(size) explode.
_MIN_SIDE = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Images `[N, 3, H, W]`, offsets `[N, P, 4]` and labels `[N, P]` of `edgedet.training.targets`."""

    images: Tensor
    offsets: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(*(t.to(device, non_blocking=True) for t in (self.images, self.offsets, self.labels)))


class TrainingSamples(torch.utils.data.Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Samples of a data set; the next readable image stands in for one that cannot be read.

    Args:
        dataset: What to learn from; its labels are the detector's.
        spec: Of the detector.
        augmentation: How images are changed.
        seed: Of the run.
        cache_bytes: Most memory for decoded images, which are read at once, so that the workers of all epochs
            share them; the others are read whenever they are needed.
        track: Shows the reading.

    Raises:
        DataError: There is no image; when a sample is asked for, also where none of them can be read.
    """

    def __init__(
        self,
        dataset: Dataset,
        spec: DetectorSpec,
        augmentation: AugmentationConfig,
        *,
        seed: int = 0,
        cache_bytes: int = 0,
        track: Track = silent,
    ) -> None:
        self.epoch = 0
        self._dataset, self._spec, self._seed = dataset, spec, seed
        self._augment, self._encode = Augmentation(augmentation), TargetEncoder(spec)
        self._cached: dict[int, LabelledImage] = {}
        if not len(dataset):
            raise self._nothing_readable()
        if cache_bytes:
            self._fill_cache(cache_bytes, track)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        image = self._image(index)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_sample_seed(self._seed, self.epoch, index))
            pixels, boxes, classes = self._augment(
                image.image_bgr, image.boxes_xyxy, np.stack([image.class_ids, image.ignore], axis=1)
            )
        tensor, geometry = preprocess(pixels, self._spec.input)
        boxes, classes = _in_tensor(boxes, classes, geometry)
        offsets, labels = self._encode(boxes, classes[:, 0], classes[:, 1].astype(bool))
        return torch.from_numpy(tensor[0]), torch.from_numpy(offsets), torch.from_numpy(labels)

    def boxes_below(self, side: float) -> tuple[int, int]:
        """How many boxes of the images that are kept have a side below that many pixels of the input.

        Returns:
            Those boxes, and all of these images.
        """
        small = every = 0
        for image in self._cached.values():
            height, width = image.image_bgr.shape[:2]
            boxes = Geometry.of((height, width), self._spec.input).to_tensor(image.boxes_xyxy)
            small += int(((boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) < side).sum())
            every += len(boxes)
        return small, every

    def plain_images(self, count: int) -> Tensor:
        """Up to `count` images as they are, spread over the data set, `[n, 3, H, W]`."""
        step = max(len(self) // count, 1)
        chosen = range(0, len(self), step)[:count]
        images = [preprocess(self._image(index).image_bgr, self._spec.input)[0] for index in chosen]
        return torch.from_numpy(np.concatenate(images))

    def _fill_cache(self, cache_bytes: int, track: Track) -> None:
        """Keep the first images, as many as fit."""
        left = cache_bytes
        for index in track(range(len(self)), "Reading images", len(self)):
            image = self._read(index)
            if image is None:
                continue
            left -= image.image_bgr.nbytes
            if left < 0:
                return
            self._cached[index] = image

    def _image(self, index: int) -> LabelledImage:
        """The image at an index or the next one that can be read, whatever is cached."""
        for offset in range(len(self)):
            image = self._read((index + offset) % len(self))
            if image is not None:
                return image
        raise self._nothing_readable()

    def _read(self, index: int) -> LabelledImage | None:
        if index in self._cached:
            return self._cached[index]
        try:
            return self._dataset[index]
        except DataError:  # counted in the summary of the data set
            return None

    def _nothing_readable(self) -> DataError:
        return DataError(
            f"nothing to train on in {self._dataset.root}",
            got=str(self._dataset.summary),
            expected="at least one readable image",
            fix="check the folder and the split",
        )


def loader(samples: TrainingSamples, config: TrainConfig, epoch: int, group: Group) -> DataLoader[Any]:
    """The batches of one epoch for this process."""
    samples.epoch = epoch
    plan = batch_indices(len(samples), config.batch_size, config.seed, epoch, group)
    return DataLoader(
        samples,
        batch_sampler=plan,
        num_workers=config.workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
    )


def batch_indices(images: int, batch_size: int, seed: int, epoch: int, group: Group) -> list[list[int]]:
    """Which images this process takes in each step of an epoch.

    The step's images are the same for one process with batch size 2 b as for two with b. Images that do not
    fill a last batch of all processes are left to another epoch, for batch normalisation needs whole batches.
    """
    together = min(batch_size * group.size, images - images % group.size)
    if together < group.size or not together:
        raise DataError(
            "there are fewer images than processes",
            got=f"{images} images, {group.size} processes",
            expected="at least one image for each",
            fix="use fewer processes or more images",
        )
    order = np.random.default_rng([seed, epoch]).permutation(images).tolist()
    share = together // group.size
    starts = range(group.rank * share, images - together + group.rank * share + 1, together)
    return [order[start : start + share] for start in starts]


def _sample_seed(seed: int, epoch: int, index: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, index]).generate_state(1, np.uint64)[0] >> 1)


def _in_tensor(boxes: Floats, classes: Ints, geometry: Geometry) -> tuple[Floats, Ints]:
    boxes = geometry.to_tensor(clip(boxes, geometry.image_hw))
    keep = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] >= _MIN_SIDE).all(axis=1))
    return boxes[keep], classes[keep]


def _collate(samples: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Batch:
    images, offsets, labels = (torch.stack(column) for column in zip(*samples, strict=True))
    return Batch(images, offsets, labels)
