"""Run the float detector over calibration images once and count what its tensors hold."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Interpreter, Node

from edgedet.data.coverage import CoverageCounter
from edgedet.errors import DataError
from edgedet.files import sha256_of
from edgedet.models.capture import Captured
from edgedet.progress import Track, silent
from edgedet_calibration.images import CalibrationImages
from edgedet_calibration.placement import Placement
from edgedet_calibration.stats import Histogram, ImageEntry, Stats, TensorStats


def collect(
    captured: Captured, placement: Placement, calibration: CalibrationImages, track: Track = silent
) -> Stats:
    """Collect statistics of every quantized tensor.

    Images pass through the same `preprocess` as in every runtime.

    Args:
        captured: The float graph.
        placement: What is quantized in it.
        calibration: The images.
        track: Shows progress.

    Raises:
        DataError: Not one image could be read.
    """
    histograms = {name: Histogram() for name in placement.ranges}
    observer = _Observer(captured, histograms)
    steps = torch.tensor(captured.spec.input.std).reshape(3, 1, 1)
    images: list[ImageEntry] = []
    counter = CoverageCounter(calibration.dataset.labels, captured.spec.labels)
    for image, tensor, geometry in track(calibration, "Collecting ranges", len(calibration)):
        with torch.inference_mode():
            observer.run(tensor)
        digest = sha256_of(image.path) if image.path.is_file() else ""
        images.append(ImageEntry(image_id=image.image_id, sha256=digest))
        counter.add(image, geometry.content_of((tensor[0] * steps).numpy()))
    if not images:
        raise DataError(
            "cannot calibrate",
            got=f"no readable image among {len(calibration)}",
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
