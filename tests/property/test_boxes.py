"""Properties of boxes that hold for every input, and agreement with torchvision."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import ops

import edgedet.boxes
from edgedet.boxes import area, clip, cxcywh_to_xyxy, iou, nms, paired_iou, xyxy_to_cxcywh

SIDE = 64


@st.composite
def boxes(draw: st.DrawFn, *, grid: int = 1, most: int = 40) -> np.ndarray:
    """Boxes with corners on a grid, so that identical, touching and empty ones are common."""
    n = draw(st.integers(0, most))
    corner = st.integers(0, SIDE // grid)
    rows = draw(st.lists(st.tuples(corner, corner, corner, corner), min_size=n, max_size=n))
    corners = np.array(rows, np.float32).reshape(-1, 4) * grid
    return np.concatenate(
        [np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], 1
    )


@st.composite
def candidates(draw: st.DrawFn, *, distinct: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found = draw(boxes(grid=draw(st.sampled_from([1, 8]))))
    n = len(found)
    ranks = (
        draw(st.permutations(range(n)))
        if distinct
        else draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    )
    class_ids = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    return found, np.array(ranks, np.float32) / 64, np.array(class_ids, np.int64)


def expected_nms(found: np.ndarray, scores: np.ndarray, class_ids: np.ndarray, threshold: float) -> set[int]:
    """torchvision's suppression on every class, without the offsets of `batched_nms`, which round."""
    kept: set[int] = set()
    for class_id in np.unique(class_ids):
        members = np.flatnonzero(class_ids == class_id)
        stay = ops.nms(torch.from_numpy(found[members]), torch.from_numpy(scores[members]), threshold)
        kept |= set(members[stay.numpy()].tolist())
    return kept


thresholds = st.sampled_from([0.0, 0.1, 0.25, 0.3, 1 / 3, 0.45, 0.5, 0.7, 0.9, 1.0])


@given(boxes(), boxes())
def test_iou_is_symmetric_and_between_0_and_1(a: np.ndarray, b: np.ndarray) -> None:
    overlap = iou(a, b)
    np.testing.assert_array_equal(overlap, iou(b, a).T)
    assert ((overlap >= 0) & (overlap <= 1)).all()
    assert overlap.dtype == np.float32


@given(boxes())
def test_iou_of_a_box_with_itself_is_1_unless_it_is_empty(a: np.ndarray) -> None:
    np.testing.assert_array_equal(np.diag(iou(a, a)), (area(a) > 0).astype(np.float32))


@given(boxes(), boxes())
def test_iou_is_torchvisions(a: np.ndarray, b: np.ndarray) -> None:
    expected = ops.box_iou(torch.from_numpy(a), torch.from_numpy(b)).nan_to_num(0.0).numpy()
    np.testing.assert_allclose(iou(a, b), expected, rtol=1e-6)


def test_touching_boxes_do_not_overlap() -> None:
    left, right = np.array([[0, 0, 10, 10]], np.float32), np.array([[10, 0, 20, 10]], np.float32)
    assert iou(left, right) == 0


@given(boxes())
def test_clipped_boxes_are_inside_and_clipping_again_changes_nothing(a: np.ndarray) -> None:
    inside = clip(a * 3 - 40, (48, 32))
    assert (inside >= 0).all()
    assert (inside <= np.array([32, 48, 32, 48])).all()
    np.testing.assert_array_equal(clip(inside, (48, 32)), inside)


@given(boxes())
def test_centre_and_size_return_to_the_same_corners(a: np.ndarray) -> None:
    np.testing.assert_array_equal(cxcywh_to_xyxy(xyxy_to_cxcywh(a)), a)


@given(candidates(), thresholds)
def test_nms_keeps_what_torchvision_keeps(sample: tuple[np.ndarray, ...], threshold: float) -> None:
    kept = nms(*sample, threshold)
    assert set(kept.tolist()) == expected_nms(*sample, threshold)
    assert len(set(kept.tolist())) == len(kept)


@given(candidates(), thresholds, st.none() | st.integers(1, 9))
def test_nms_does_not_depend_on_the_blocks_that_are_compared_at_once(
    sample: tuple[np.ndarray, ...], threshold: float, limit: int | None
) -> None:
    whole = nms(*sample, threshold, limit)
    with mock.patch.multiple(edgedet.boxes, _FIRST_NMS_BLOCK=2, _NMS_BLOCK=4):
        np.testing.assert_array_equal(nms(*sample, threshold, limit), whole)


@given(candidates(), thresholds)
def test_nms_gives_descending_scores(sample: tuple[np.ndarray, ...], threshold: float) -> None:
    scores = sample[1][nms(*sample, threshold)]
    assert (np.diff(scores) <= 0).all()


@given(candidates(), thresholds)
def test_nms_of_what_it_kept_keeps_all(sample: tuple[np.ndarray, ...], threshold: float) -> None:
    kept = nms(*sample, threshold)
    again = nms(*(array[kept] for array in sample), threshold)
    np.testing.assert_array_equal(again, np.arange(len(kept)))


@given(candidates(distinct=True), thresholds, st.randoms(use_true_random=False))
def test_nms_does_not_depend_on_the_order_of_distinct_scores(sample, threshold: float, random) -> None:
    shuffle = np.array(random.sample(range(len(sample[1])), len(sample[1])), np.int64)
    kept = nms(*(array[shuffle] for array in sample), threshold)
    np.testing.assert_array_equal(shuffle[kept], nms(*sample, threshold))


@given(candidates(), thresholds, st.integers(0, 10))
def test_a_limit_gives_the_first_of_all_that_stay(sample, threshold: float, limit: int) -> None:
    np.testing.assert_array_equal(nms(*sample, threshold, limit), nms(*sample, threshold)[:limit])


def test_an_iou_of_exactly_the_threshold_is_decided_as_torchvision_does() -> None:
    # 3 / 10 rounds to a float32 above the double 0.3: "greater than 0.3" depends on where it is compared.
    found = np.array([[0, 0, 10, 1], [0, 0, 3, 1]], np.float32)
    scores, class_ids = np.array([0.9, 0.8], np.float32), np.zeros(2, np.int64)
    assert (
        set(nms(found, scores, class_ids, 0.3).tolist()) == expected_nms(found, scores, class_ids, 0.3) == {0}
    )


def test_nothing_in_gives_nothing_out() -> None:
    kept = nms(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), 0.5)
    assert kept.shape == (0,)
    assert kept.dtype == np.int64


def test_equal_scores_keep_their_order() -> None:
    same = np.tile(np.array([[0, 0, 10, 10]], np.float32), (5, 1))
    assert nms(same, np.full(5, 0.5, np.float32), np.zeros(5, np.int64), 0.5).tolist() == [0]
    assert nms(same, np.full(5, 0.5, np.float32), np.arange(5), 0.5).tolist() == [0, 1, 2, 3, 4]


def random_candidates(count: int, classes: int, largest: float, seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 640, (count, 2))
    found = np.concatenate([corners, corners + rng.uniform(1, largest, (count, 2))], 1).astype(np.float32)
    return found, rng.permutation(count).astype(np.float32) / count, rng.integers(0, classes, count)


@pytest.mark.parametrize(
    ("count", "classes", "largest"),
    [
        (1, 1, 50),
        (255, 3, 100),
        (256, 3, 100),
        (257, 3, 100),
        (3000, 80, 200),
        (10_000, 4, 120),
        (10_000, 1, 4),
    ],
)
def test_large_sets_agree_with_batched_nms(count: int, classes: int, largest: float) -> None:
    found, scores, class_ids = random_candidates(count, classes, largest, seed=count + classes)
    kept = nms(found, scores, class_ids, 0.45)
    expected = ops.batched_nms(*(torch.from_numpy(a) for a in (found, scores, class_ids)), 0.45)
    np.testing.assert_array_equal(kept, expected.numpy())


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_random_sets_agree_with_torchvision(seed: int) -> None:
    sample = random_candidates(400, 3, 150, seed)
    assert set(nms(*sample, 0.45).tolist()) == expected_nms(*sample, 0.45)


@given(boxes(grid=4), st.randoms(use_true_random=False))
def test_the_iou_of_pairs_is_the_diagonal_of_the_iou_of_all(found: np.ndarray, random) -> None:
    others = found[random.sample(range(len(found)), len(found))]
    np.testing.assert_allclose(paired_iou(found, others), iou(found, others).diagonal(), rtol=1e-6)
