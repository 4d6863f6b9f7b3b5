"""The matching of detections to objects is that of pycocotools to the bit."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from edgedet.evaluate.coco_matching import SparseEvaluation, match_by_threshold

CATEGORIES = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": "none"}]


def annotations(rng: np.random.Generator, count: int, **drawn) -> list[dict]:
    """Boxes on a coarse grid, so that overlaps are equal and exactly at thresholds; three sizes of area."""
    made = []
    for number in range(count):
        x, y = rng.integers(0, 6, 2) * 10.0
        width, height = rng.choice([10.0, 20.0, 40.0, 110.0], 2)
        made.append(
            {"id": number + 1, "image_id": int(rng.integers(1, 9)), "category_id": int(rng.integers(1, 3))}
            | {"bbox": [x, y, width, height], "area": width * height}
            | {name: draw(rng) for name, draw in drawn.items()}
        )
    return made


def coco(entries: list[dict]) -> COCO:
    document = COCO()
    images = [{"id": number, "width": 200, "height": 200} for number in range(1, 9)]
    document.dataset = {"images": images, "categories": CATEGORIES, "annotations": entries}
    document.createIndex()
    return document


@pytest.mark.parametrize("seed", range(6))
def test_every_number_of_an_evaluation_is_that_of_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = annotations(rng, 60, iscrowd=lambda rng: int(rng.random() < 0.15))
    found = annotations(rng, 500, score=lambda rng: float(rng.integers(1, 20)) / 20)
    evaluations = []
    with contextlib.redirect_stdout(io.StringIO()):
        for kind in (COCOeval, SparseEvaluation):
            evaluation = kind(coco([dict(one) for one in truth]), coco([dict(one) for one in found]), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluations.append(evaluation)
    theirs, ours = evaluations
    assert len(ours.evalImgs) == len(theirs.evalImgs) == 3 * 4 * 8
    matched = 0
    for expected, got in zip(theirs.evalImgs, ours.evalImgs, strict=True):
        assert (got is None) == (expected is None)
        for name in expected or ():
            np.testing.assert_array_equal(np.asarray(got[name]), np.asarray(expected[name]), err_msg=name)
        matched += 0 if expected is None else np.count_nonzero(expected["dtMatches"])
    assert matched > 300
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(ours.eval[name], theirs.eval[name])
    assert ours.eval["precision"].max() > 0


def test_a_crowd_takes_many_and_an_object_one() -> None:
    overlaps = np.array([[0.9, 0.6], [0.8, 0.6], [0.55, 0.6], [0.4, 0.3]])
    matches = match_by_threshold(overlaps, np.array([0, 1]), [False, True], np.array([0.5, 0.7]))
    assert matches.tolist() == [[0, 1, 1, -1], [0, -1, -1, -1]]
