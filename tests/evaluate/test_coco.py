"""Average precision is that of pycocotools, the reference implementation, where ties decide."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from edgedet.detections import Detections
from edgedet.evaluate.accuracy import EvaluatedImage
from edgedet.evaluate.coco import MAX_DETECTIONS, coco_precision

LABELS = ("a", "b", "none")


def boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """On a coarse grid, so that overlaps are equal and exactly at thresholds; three sizes of area."""
    corner = rng.integers(0, 6, (count, 2)) * 10.0
    return np.hstack([corner, corner + rng.choice([10.0, 20.0, 40.0, 110.0], (count, 2))]).astype(np.float32)


def image(rng: np.random.Generator, truth: int, found: int, *, areas: bool) -> EvaluatedImage:
    scores = np.sort(rng.integers(1, 20, found).astype(np.float32) / 20)[::-1]
    return EvaluatedImage(
        (200, 200),
        boxes(rng, truth),
        rng.integers(0, 2, truth),
        rng.random(truth) < 0.15,
        Detections(boxes(rng, found), scores, rng.integers(0, 2, found)),
        rng.choice([90.0, 1500.0, 12000.0], truth) if areas else None,
    )


def of_pycocotools(images: list[EvaluatedImage]) -> np.ndarray:
    """The same by the reference implementation, from annotations that are written down one by one."""
    truth, found = [], []
    for image_id, one in enumerate(images, 1):
        areas = [None] * len(one.boxes_xyxy) if one.areas is None else one.areas.tolist()
        for box, class_id, ignore, area in zip(
            one.boxes_xyxy.tolist(), one.class_ids.tolist(), one.ignore.tolist(), areas, strict=True
        ):
            truth.append(annotation(len(truth) + 1, image_id, class_id, box, area) | {"iscrowd": int(ignore)})
        columns = (one.detections.boxes_xyxy, one.detections.class_ids, one.detections.scores)
        for box, class_id, score in zip(*(column.tolist() for column in columns), strict=True):
            found.append(annotation(len(found) + 1, image_id, class_id, box) | {"score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(document(len(images), truth), document(len(images), found), "bbox")
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., -1]


def annotation(
    number: int, image_id: int, class_id: int, box: list[float], area: float | None = None
) -> dict[str, object]:
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    area = width * height if area is None else area
    return {"id": number, "image_id": image_id, "category_id": class_id + 1, "area": area} | {
        "bbox": [x1, y1, width, height]
    }


def document(images: int, annotations: list[dict[str, object]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number, "width": 200, "height": 200} for number in range(1, images + 1)],
        "categories": [{"id": number, "name": label} for number, label in enumerate(LABELS, 1)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


@pytest.mark.parametrize("seed", range(6))
def test_precision_is_that_of_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [image(rng, 7, 60, areas=number % 2 == 1) for number in range(20)]
    images += [image(rng, 3, 0, areas=True), image(rng, 0, 9, areas=False), image(rng, 2, 150, areas=False)]
    expected = of_pycocotools(images)
    found = coco_precision(images, LABELS).precision
    assert found.shape == expected.shape == (10, 101, 3, 4)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2.5e-16)
    for index in range(4):
        assert expected[..., index].max() > 0, "every range of area has objects that are found"
    assert (expected[:, :, 2] == -1).all(), "a class without objects has no precision"


def test_without_objects_there_is_no_precision() -> None:
    rng = np.random.default_rng(0)
    assert (coco_precision([image(rng, 0, 5, areas=False)], LABELS).precision == -1).all()


def test_without_detections_precision_is_0() -> None:
    rng = np.random.default_rng(0)
    assert coco_precision([image(rng, 5, 0, areas=False)], LABELS).map() == 0
