"""Run the float detector over calibration images once and count what its tensors hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Interpreter, Node

from edgedet.data import Dataset, LabelledImage
from edgedet.data.coverage import CoverageCounter
from edgedet.errors import DataError
from edgedet.files import sha256_of
from edgedet.models.capture import Captured
from edgedet.preprocess import preprocess
from edgedet.progress import Track, silent
from edgedet_calibration.placement import Placement
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import Histogram, ImageEntry, Stats, TensorStats


def calibration_images(dataset: Dataset, count: int, at_most: int | None = None) -> Iterator[LabelledImage]:
    """Up to `count` readable images, evenly spaced over the data set: the same ones every time.

    Args:
        dataset: Where they are.
        count: How many places there are for them.
        at_most: Take no more than so many of those places, evenly spaced again.
    """
    step, places = max(len(dataset) / count, 1.0), min(count, len(dataset))
    taken = min(places, at_most or places)
    for position in (place * places // taken for place in range(taken)):
        try:
            yield dataset[int(position * step)]
        except DataError:
            continue  # counted in the data set's summary


def collect(
    captured: Captured, placement: Placement, dataset: Dataset, recipe: Recipe, track: Track = silent
) -> Stats:
    """Collect statistics of every quantized tensor.

    Images pass through the same `preprocess` as in every runtime.

    Raises:
        DataError: Not one image could be read.
    """
    histograms = {name: Histogram() for name in placement.ranges}
    observer = _Observer(captured, histograms)
    images: list[ImageEntry] = []
    counter = CoverageCounter(dataset.labels, captured.spec.labels)
    total = min(recipe.images, len(dataset))
    for image in track(calibration_images(dataset, recipe.images), "calibrate", total):
        tensor, _ = preprocess(image.image_bgr, captured.spec.input)
        with torch.inference_mode():
            observer.run(torch.from_numpy(tensor))
        digest = sha256_of(image.path) if image.path.is_file() else ""
        images.append(ImageEntry(image_id=image.image_id, sha256=digest))
        counter.add(image)
    if not images:
        raise DataError(
            "cannot calibrate",
            got=f"no readable image among {len(dataset)}",
            expected="at least one",
            fix="point --calibration at a folder of images",
        )
    return Stats(
        checkpoint_sha256=captured.spec.provenance.checkpoint_sha256,
        input=captured.spec.input,
        images=tuple(images),
        tensors={name: TensorStats.of(histogram) for name, histogram in histograms.items()},
        coverage=counter.coverage(),
    )


class _Observer(Interpreter):
    """Runs the graph and counts the values of some of its nodes."""

    def __init__(self, captured: Captured, histograms: dict[str, Histogram]) -> None:
        super().__init__(captured.graph_module)
        self._histograms = histograms

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        histogram = self._histograms.get(n.name)
        if histogram is not None:
            histogram.add(value)
        return value
