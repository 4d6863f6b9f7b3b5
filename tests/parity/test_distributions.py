"""How far detections move is counted in bins that do not grow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedet.detections import Detections
from edgedet.parity import load_budgets, match
from edgedet.parity.compare import DetectionComparison
from edgedet.parity.distributions import DistributionCounter, Distributions, Histogram

THRESHOLD = 0.4


def detections(*rows: tuple[tuple[float, ...], float]) -> Detections:
    boxes, scores = zip(*rows, strict=True) if rows else ((), ())
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.zeros(len(rows), np.int64),
    )


def counted(*images: tuple[Detections, Detections]) -> Distributions:
    counter = DistributionCounter()
    for reference, candidate in images:
        matching = match(
            reference,
            candidate,
            iou_threshold=0.8,
            score_threshold=THRESHOLD,
            threshold_tolerance=0.05,
        )
        counter.add(reference, candidate, matching)
    return counter.distributions()


def filled(histogram: Histogram) -> dict[float, int]:
    """The bins that hold something, by their lower bound."""
    return {low: count for low, count in zip(histogram.edges, histogram.counts, strict=False) if count}


def test_a_pair_is_in_the_bins_of_its_differences():
    found = counted((detections(((0, 0, 100, 100), 0.80)), detections(((0, 0, 103, 100), 0.77))))
    assert filled(found.score_delta) == {0.02: 1}
    assert filled(found.box_px) == {2.0: 1}
    assert filled(found.iou) == {0.96: 1}
    assert found.mean_score_delta == pytest.approx(-0.03, abs=1e-6)
    assert found.lost_scores.total == found.gained_scores.total == found.excused_scores.total == 0


def test_what_has_no_partner_is_counted_by_its_own_score():
    apart = [(200.0 * i, 0.0, 200.0 * i + 50, 50.0) for i in range(4)]
    reference = detections((apart[0], 0.62), (apart[1], 0.43))
    found = counted((reference, detections((apart[2], 0.90), (apart[3], 0.41))))
    assert filled(found.lost_scores) == {0.62: 1}
    assert filled(found.gained_scores) == {0.9: 1}
    assert filled(found.excused_scores) == {0.42: 1, 0.4: 1}
    assert (found.mean_score_delta, found.score_delta.total) == (None, 0)


@given(st.floats(0, 2000), st.floats(0, 1))
def test_every_value_is_in_one_bin_and_those_beyond_in_the_outer_ones(shift: float, score: float):
    moved = detections(((0, 0, 1e6, 1e6), score))
    found = counted((detections(((shift, 0, 1e6, 1e6), 0.5)), moved))
    (low,) = filled(found.box_px)
    index = found.box_px.edges.index(low)
    high = found.box_px.edges[index + 1]
    slack = 1e-6 * max(1, shift)
    assert low - slack <= np.float32(shift)
    assert np.float32(shift) <= high + slack or high == 1000
    assert found.score_delta.total == found.iou.total == 1


def test_equal_detections_are_in_the_first_bin_and_the_last_of_iou():
    same = detections(((0, 0, 100, 100), 1.0))
    found = counted((same, same), (same, same))
    assert filled(found.score_delta) == filled(found.box_px) == {0.0: 2}
    assert filled(found.iou) == {0.98: 2}


def test_a_comparison_counts_what_it_matches():
    comparison = DetectionComparison(("cell",), load_budgets().int8, THRESHOLD)
    for number in range(3):
        reference = detections(((0, 0, 50, 50), 0.9), ((100, 0, 150, 50), 0.8))
        comparison.add(f"{number}", reference, detections(((0, 0, 50, 50), 0.9)))
    found = comparison.counter.distributions()
    assert found.score_delta.total == comparison.matched == 3
    assert found.lost_scores.total == comparison.lost == 3
    assert len(found.model_dump_json()) < 3000, "small, however many images there are"


def test_many_images_are_counted_as_one_by_one_however_often_they_are_asked_for():
    rng = np.random.default_rng(0)
    counter, moves = DistributionCounter(), rng.choice([0.0, 0.01, 0.02, 0.05], (130, 3))
    for number, scores in enumerate(moves):
        boxes = [(200.0 * place, 0.0, 200.0 * place + 100, 100.0) for place in range(3)]
        reference = detections(*((box, 0.8) for box in boxes))
        candidate = detections(*((box, 0.8 + score) for box, score in zip(boxes, scores, strict=True)))
        matching = match(reference, candidate, iou_threshold=0.8)
        counter.add(reference, candidate, matching)
        assert counter.distributions().score_delta.total == 3 * (number + 1) or number % 50
    found = counter.distributions()
    assert found == counter.distributions()
    assert (found.iou.total, found.lost_scores.total) == (390, 0)
    assert filled(found.score_delta)[0.0] >= int((moves == 0).sum())
