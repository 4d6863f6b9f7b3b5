"""Accuracy of a detector that is being trained, through the pipeline that every runtime goes through."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from edgedet.boxes import Floats
from edgedet.data import Dataset
from edgedet.evaluate import AccuracyReport, evaluate
from edgedet.models.detector import Detector
from edgedet.pipeline import Pipeline
from edgedet.progress import Track, silent
from edgedet.spec import TensorSpec


class DetectorRuntime:
    """A detector in memory as a runtime."""

    name = "training"

    def __init__(self, detector: Detector) -> None:
        self.spec = detector.spec()
        self.inputs: tuple[TensorSpec, ...] = (self.spec.input.tensor,)
        self.outputs: tuple[TensorSpec, ...] = self.spec.outputs
        self._detector = detector.eval()
        self._device = next(detector.parameters()).device

    def run(self, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        """Outputs by name."""
        images = torch.from_numpy(feeds[self.spec.input.name]).to(self._device)
        with torch.inference_mode():
            outputs = self._detector(images)
        return {
            spec.name: tensor.float().cpu().numpy()
            for spec, tensor in zip(self.outputs, outputs, strict=True)
        }

    def close(self) -> None:
        """Nothing to free."""


def evaluate_detector(detector: Detector, dataset: Dataset, track: Track = silent) -> AccuracyReport:
    """Average precision on a data set; leaves the detector in evaluation mode."""
    return evaluate(Pipeline(DetectorRuntime(detector)), dataset, track)
