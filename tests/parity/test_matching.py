"""One-to-one matching of detections."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.optimize  # noqa: F401  # its import would count as time of the first example
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedet.boxes import iou, nms
from edgedet.detections import Detections
from edgedet.parity import match


def detections(*rows: tuple[list[float], float, int]) -> Detections:
    boxes, scores, class_ids = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(class_ids, np.int64),
    )


@st.composite
def some_detections(draw: st.DrawFn) -> Detections:
    """Up to 30 boxes on a small image, with duplicates of boxes and of scores."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(0, 30))
    corners = rng.integers(0, 20, (count, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + rng.integers(1, 12, (count, 2))], axis=1)
    scores = rng.choice(np.linspace(0.1, 1, 12), count).astype(np.float32)
    return Detections(boxes, scores, rng.integers(0, 3, count))


def moved(reference: Detections, seed: int) -> Detections:
    """The same detections, a little off and in another order."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(reference))
    boxes = reference.boxes_xyxy + rng.normal(0, 0.4, reference.boxes_xyxy.shape).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 0.1)
    return Detections(boxes[order], reference.scores[order], reference.class_ids[order])


@given(some_detections())
def test_detections_match_themselves_perfectly(found: Detections):
    matching = match(found, found, iou_threshold=0.9)
    assert (len(matching.pairs), len(matching.lost), len(matching.gained)) == (len(found), 0, 0)
    assert (matching.max_score_delta, matching.max_box_px) == (0, 0)


@given(some_detections(), st.integers(0, 99), st.sampled_from([0.3, 0.5, 0.8]))
def test_swapping_sides_swaps_lost_and_gained(found: Detections, seed: int, threshold: float):
    other = moved(found, seed)
    one, two = match(found, other, iou_threshold=threshold), match(other, found, iou_threshold=threshold)
    assert (len(one.lost), len(one.gained)) == (len(two.gained), len(two.lost))
    assert one.max_box_px == pytest.approx(two.max_box_px)


@given(some_detections(), st.integers(0, 99))
def test_the_order_of_detections_does_not_matter(found: Detections, seed: int):
    other = moved(found, seed)
    order = np.random.default_rng(seed).permutation(len(found))
    one, two = match(found, other, iou_threshold=0.5), match(found[order], other, iou_threshold=0.5)
    as_given = {(int(order[i]), int(j)) for i, j in two.pairs}
    assert {(int(i), int(j)) for i, j in one.pairs} == as_given


@given(some_detections(), st.integers(0, 99))
def test_every_detection_is_in_one_pair_or_alone(found: Detections, seed: int):
    other = moved(found, seed)
    matching = match(found, other, iou_threshold=0.6, score_threshold=0.3, threshold_tolerance=0.1)
    left = [*matching.pairs[:, 0], *matching.lost, *matching.excused_lost]
    right = [*matching.pairs[:, 1], *matching.gained, *matching.excused_gained]
    assert sorted(left) == list(range(len(found)))
    assert sorted(right) == list(range(len(other)))
    for i, j in matching.pairs:
        assert found.class_ids[i] == other.class_ids[j]
        assert iou(found.boxes_xyxy[[i]], other.boxes_xyxy[[j]])[0, 0] >= 0.6


@given(some_detections(), st.integers(0, 99))
@settings(max_examples=60)
def test_after_suppression_no_detection_has_two_possible_partners(found: Detections, seed: int):
    """The claim of the module: with NMS at 0.45 and pairs from IoU 0.8 nothing has to be decided."""
    reference = found[nms(found.boxes_xyxy, found.scores, found.class_ids, 0.45)]
    other = moved(reference, seed)
    other = other[nms(other.boxes_xyxy, other.scores, other.class_ids, 0.45)]
    possible = (iou(reference.boxes_xyxy, other.boxes_xyxy) >= 0.8) & (
        reference.class_ids[:, None] == other.class_ids[None]
    )
    assert (possible.sum(axis=0) <= 1).all()
    assert (possible.sum(axis=1) <= 1).all()
    assert len(match(reference, other, iou_threshold=0.8).pairs) == possible.sum()


def test_a_pair_gives_way_where_two_pairs_are_possible():
    reference = detections(([0, 0, 10, 10], 0.9, 0), ([0, 0, 10, 8], 0.9, 0))
    # The first overlaps both, and the second of the reference better than the first.
    candidate = detections(([0, 0, 10, 8.5], 0.9, 0), ([0, 0, 10, 13], 0.9, 0))
    overlaps = iou(reference.boxes_xyxy, candidate.boxes_xyxy)
    assert overlaps[0].min() > 0.7
    assert overlaps[1, 1] < 0.7
    assert match(reference, candidate, iou_threshold=0.7).pairs.tolist() == [[0, 1], [1, 0]]


@given(some_detections(), st.integers(0, 99))
@settings(max_examples=40)
def test_no_assignment_has_more_pairs(found: Detections, seed: int):
    reference, other = found[:6], moved(found[:6], seed)
    possible = (iou(reference.boxes_xyxy, other.boxes_xyxy) >= 0.3) & (
        reference.class_ids[:, None] == other.class_ids[None]
    )
    most = max(
        (
            sum(possible[i, j] for i, j in enumerate(order))
            for order in itertools.permutations(range(len(other)))
        ),
        default=0,
    )
    assert len(match(reference, other, iou_threshold=0.3).pairs) == most


def test_classes_are_kept_apart():
    one, two = detections(([0, 0, 10, 10], 0.9, 0)), detections(([0, 0, 10, 10], 0.9, 1))
    matching = match(one, two, iou_threshold=0.5)
    assert (matching.lost.tolist(), matching.gained.tolist()) == ([0], [0])


def test_the_better_overlap_wins_whatever_the_order():
    reference = detections(([0, 0, 10, 10], 0.9, 0))
    near, nearer = ([0, 0, 10, 8], 0.9, 0), ([0, 0, 10, 9], 0.5, 0)
    for order in itertools.permutations([near, nearer]):
        matching = match(reference, detections(*order), iou_threshold=0.5)
        assert order[matching.pairs[0, 1]] == nearer
        assert matching.max_box_px == 1
        assert matching.max_score_delta == pytest.approx(0.4)


def test_a_detection_near_the_threshold_may_be_missing():
    reference = detections(([0, 0, 10, 10], 0.44, 0), ([20, 20, 30, 30], 0.46, 0))
    matching = match(
        reference, Detections.empty(), iou_threshold=0.5, score_threshold=0.4, threshold_tolerance=0.05
    )
    assert (matching.excused_lost.tolist(), matching.lost.tolist()) == ([0], [1])


def test_nothing_matches_nothing():
    matching = match(Detections.empty(), Detections.empty(), iou_threshold=0.5)
    assert matching.pairs.shape == (0, 2)
    assert (matching.max_score_delta, matching.max_box_px) == (0, 0)
