"""The built-in data set is the same every time, and its boxes fit what is drawn."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest

from edgedet.boxes import area
from edgedet.data import open_dataset
from edgedet.data.scenes import _MOST_OBJECTS, SIZES_HW, _shape, draw_scene
from edgedet.data.shapes import OUTLINES
from edgedet.data.synthetic import LABELS, SyntheticDataset
from edgedet.errors import DataError


def digest(dataset: SyntheticDataset, index: int) -> str:
    item = dataset[index]
    parts = (item.image_bgr, item.boxes_xyxy, item.class_ids)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def test_the_splits_have_their_sizes_and_the_default_is_test() -> None:
    assert [len(open_dataset("builtin", split)) for split in ("train", "val", "test")] == [2000, 100, 100]
    assert open_dataset("builtin").split == "test"
    assert len(open_dataset("builtin", "train+val")) == 2100
    with pytest.raises(DataError, match="expected one of train, val, test"):
        open_dataset("builtin", "dev")


def test_an_image_is_fixed_by_seed_split_and_index() -> None:
    first, again = SyntheticDataset("val"), SyntheticDataset("train+val")
    backwards = [digest(first, index) for index in (5, 0)]
    assert backwards == [digest(again, 2000 + index) for index in (5, 0)]
    assert digest(SyntheticDataset("val", seed=1), 0) != digest(first, 0)


def test_no_image_is_in_two_splits() -> None:
    digests = [
        digest(SyntheticDataset(split), index) for split in ("train", "val", "test") for index in range(15)
    ]
    assert len(set(digests)) == len(digests)


def test_boxes_are_inside_and_of_sizes_that_can_be_seen() -> None:
    sides, counts = [], np.zeros(len(LABELS), int)
    dataset = SyntheticDataset("train", size=60)
    for item in dataset:
        height, width = item.image_bgr.shape[:2]
        assert (height, width) in SIZES_HW
        assert len(item.boxes_xyxy) <= _MOST_OBJECTS
        assert (item.boxes_xyxy >= 0).all()
        assert (item.boxes_xyxy <= np.array([width, height, width, height])).all()
        assert (area(item.boxes_xyxy) > 0).all()
        assert not item.ignore.any()
        sides += np.max(item.boxes_xyxy[:, 2:] - item.boxes_xyxy[:, :2], axis=1).tolist()
        counts += np.bincount(item.class_ids, minlength=len(LABELS))
    assert counts.min() >= 15
    assert max(sides) <= 201
    assert np.percentile(sides, 5) >= 9
    assert dataset.summary.boxes == counts.sum()


@pytest.mark.parametrize("name", LABELS)
def test_a_mask_has_one_piece_as_large_as_asked(name: str) -> None:
    for seed in range(10):
        mask = _shape(np.random.default_rng(seed), name, 120.0)
        pieces, _ = cv2.connectedComponents((mask > 127).astype(np.uint8))
        assert pieces == 2
        assert max(mask.shape) <= 124
        assert max(mask[[0, -1]].max(), mask[:, [0, -1]].max()) < 8  # nothing is cut off


def test_outlines_lie_in_the_unit_circle() -> None:
    for outline in OUTLINES.values():
        for contour in outline(np.random.default_rng(0)):
            assert np.linalg.norm(contour, axis=1).max() <= 1.1


def test_a_box_is_tight_around_what_was_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    """With painting replaced by one flat colour per shape on black, boxes can be read off the image."""
    painted = []

    def flat(rng, image, mask, left, top) -> None:
        painted.append((left, top, mask.copy()))

    monkeypatch.setattr("edgedet.data.scenes._paint", flat)
    for seed in range(20):
        painted.clear()
        scene = draw_scene(np.random.default_rng(seed))
        expected = set()
        for left, top, mask in painted:
            points = np.argwhere(mask > 127)
            (y1, x1), (y2, x2) = points.min(axis=0), points.max(axis=0)
            expected.add((left + x1, top + y1, left + x2 + 1, top + y2 + 1))
        assert {tuple(box) for box in scene.boxes_xyxy.astype(int).tolist()} <= expected


def test_a_shape_that_is_hidden_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every shape is put at the same place and size, so that the last one hides the others."""
    mask = np.full((40, 40), 255, np.uint8)
    monkeypatch.setattr("edgedet.data.scenes._place", lambda rng, name, owner: (mask, 1600, 5, 5))
    for seed in range(5):
        assert draw_scene(np.random.default_rng(seed)).boxes_xyxy.tolist() == [[5, 5, 45, 45]]


def test_labels_are_imposed_and_others_are_left_out() -> None:
    own, imposed = SyntheticDataset("val"), open_dataset("builtin", "val", labels=["star", "boat", "circle"])
    assert imposed.labels == ("star", "boat", "circle")
    for index in range(10):
        names = [LABELS[class_id] for class_id in own[index].class_ids]
        expected = [name for name in names if name in imposed.labels]
        assert [imposed.labels[class_id] for class_id in imposed[index].class_ids] == expected
    assert imposed.summary.boxes + imposed.summary.problems["box of an unknown class"] == own.summary.boxes
