"""Detections as a sequence of objects."""

from __future__ import annotations

import numpy as np
import pytest

from edgedet.detections import Detection, Detections

BOXES = np.arange(12, dtype=np.float32).reshape(3, 4)
FOUND = Detections(BOXES, np.array([0.9, 0.5, 0.25], np.float32), np.array([2, 0, 2]), ("cat", "dog", "owl"))


def test_iteration_gives_each_object_with_its_label() -> None:
    objects = list(FOUND)
    assert [(one.score, one.class_id, one.label) for one in objects] == [
        (pytest.approx(0.9), 2, "owl"),
        (0.5, 0, "cat"),
        (0.25, 2, "owl"),
    ]
    for (box, *_), expected in zip(objects, BOXES, strict=True):
        assert np.array_equal(box, expected)


@pytest.mark.parametrize("index", [1, -2, np.int64(1)])
def test_a_whole_number_gives_one_object(index: int) -> None:
    one = FOUND[index]
    assert isinstance(one, Detection)
    assert (one.score, one.class_id, one.label) == (0.5, 0, "cat")
    assert (type(one.score), type(one.class_id)) == (float, int)


@pytest.mark.parametrize("index", [3, -4])
def test_an_object_that_is_not_there_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError):
        FOUND[index]


@pytest.mark.parametrize("index", [slice(0, 2), np.array([0, 1]), np.array([True, True, False]), [0, 1]])
def test_a_selection_gives_detections_that_keep_their_labels(index: slice) -> None:
    chosen = FOUND[index]
    assert isinstance(chosen, Detections)
    assert len(chosen) == 2
    assert [one.label for one in chosen] == ["owl", "cat"]
    assert [one.label for one in FOUND.above(0.4)] == ["owl", "cat"]


def test_without_labels_there_is_no_name() -> None:
    found = Detections(BOXES, FOUND.scores, FOUND.class_ids)
    assert {one.label for one in found} == {""}
    assert list(Detections.empty()) == []
