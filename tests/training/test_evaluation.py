from __future__ import annotations

import dataclasses
from pathlib import Path

from edgedet.data import open_dataset
from edgedet.data.dataset import Dataset
from edgedet.models.checkpoint import load_checkpoint, read_info
from edgedet.training.evaluation import evaluate_detector

WEIGHTS = Path(__file__).parents[2] / "weights" / "bccd_ssdlite320_mobilenetv2.safetensors"


class EverySixth:
    """A sixth of a data set, for speed."""

    def __init__(self, dataset: Dataset) -> None:
        self._images = [dataset[index] for index in range(0, len(dataset), 6)]
        self.labels = dataset.labels

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self):
        return iter(self._images)


def test_the_blood_cell_detector_is_as_accurate_as_its_checkpoint_says(test_data: Path):
    detector = load_checkpoint(WEIGHTS)
    dataset = EverySixth(open_dataset(test_data / "data" / "bccd", "test"))
    report = evaluate_detector(detector, dataset)
    stated = read_info(WEIGHTS).metrics
    assert report.images == 12
    # such sixths of the test split differ from each other by 0.03 (standard deviation)
    assert abs(report.map - stated["map"]) < 0.06
    assert abs(report.map50 - stated["map50"]) < 0.06


def test_a_detector_that_looks_elsewhere_scores_nothing(test_data: Path):
    detector = load_checkpoint(WEIGHTS)
    dataset = EverySixth(open_dataset(test_data / "data" / "bccd", "test"))
    dataset._images = [dataclasses.replace(one, image_bgr=one.image_bgr * 0) for one in dataset._images[:3]]
    assert evaluate_detector(detector, dataset).map < 0.01
