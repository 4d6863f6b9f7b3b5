"""A COCO json that people have: the numbers are those of pycocotools on that very file."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from edgedet.data import open_dataset
from edgedet.detections import Detections
from edgedet.evaluate import Evaluator, shared_classes, with_detector_classes


@pytest.fixture(scope="module")
def original(test_data: Path) -> Path:
    return test_data / "data" / "coco128" / "annotations" / "instances_train2017.json"


def results_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Ground-truth boxes moved by up to a fifth of their size, some of another class, some lost."""
    rng = np.random.default_rng(3)
    categories = [category["id"] for category in document["categories"]]
    results = []
    for annotation in document["annotations"]:
        x, y, width, height = annotation["bbox"]
        corners = np.array([x, y, x + width, y + height], np.float64)
        corners += rng.uniform(-0.2, 0.2, 4) * (width, height, width, height)
        x1, y1, x2, y2 = corners.astype(np.float32).tolist()
        category = rng.choice(categories) if rng.random() < 0.1 else annotation["category_id"]
        if rng.random() > 0.1:
            box = [x1, y1, x2 - x1, y2 - y1]
            score = float(np.float32(rng.uniform(0.02, 1)))
            results.append({"image_id": annotation["image_id"], "category_id": int(category)})
            results[-1].update(bbox=box, score=score)
    return results


def detections_of(results: list[dict[str, Any]], class_ids: dict[int, int]) -> Detections:
    boxes = [(x, y, x + width, y + height) for x, y, width, height in (one["bbox"] for one in results)]
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([one["score"] for one in results], np.float32),
        np.array([class_ids[one["category_id"]] for one in results], np.int64),
    )


def test_the_numbers_are_those_of_pycocotools_on_the_original_json(original: Path) -> None:
    document = json.loads(original.read_text())
    results = results_of(document)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(original))
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()

    dataset = open_dataset(original)
    image_ids = {Path(image["file_name"]).name: image["id"] for image in document["images"]}
    class_ids = {one["id"]: dataset.labels.index(one["name"]) for one in document["categories"]}
    mapping = shared_classes(dataset.labels, dataset.labels)
    evaluator = Evaluator(dataset.labels)
    for image in dataset:
        own = [one for one in results if one["image_id"] == image_ids[image.path.name]]
        evaluator.add(with_detector_classes(image, mapping), detections_of(own, class_ids))
    report = evaluator.report()

    ours = [report.map, report.map50, report.map75, report.map_small, report.map_medium, report.map_large]
    assert 0.1 < report.map < 0.9
    assert ours == pytest.approx(list(evaluation.stats[:6]), abs=1e-9)
