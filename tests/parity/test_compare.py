"""Proposals before suppression are compared prior by prior."""

from __future__ import annotations

import numpy as np
import pytest

from edgedet.decode import Candidates
from edgedet.parity import load_budgets
from edgedet.parity.compare import ERROR_LIMIT, DecodedComparison, OutputComparison, max_abs_difference

INT8 = load_budgets().int8
BOX = (10.0, 10.0, 50.0, 50.0)


def proposals(*given: tuple[tuple[float, ...], float, int, int]) -> Candidates:
    """Candidates of (box, score, class, prior)."""
    boxes, scores, class_ids, rows = zip(*given, strict=True) if given else ((), (), (), ())
    return Candidates(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(class_ids, np.int64),
        np.array(rows, np.int64),
    )


def compared(reference: Candidates, candidate: Candidates) -> DecodedComparison:
    comparison = DecodedComparison(INT8, score_threshold=0.4)
    comparison.add(reference, candidate)
    return comparison


def test_the_same_box_of_another_prior_or_class_is_not_the_same_proposal() -> None:
    reference = proposals((BOX, 0.9, 0, 7))
    assert compared(reference, proposals((BOX, 0.8, 0, 7))).matched_fraction == 1
    assert compared(reference, proposals((BOX, 0.9, 0, 8))).matched_fraction == 0
    assert compared(reference, proposals((BOX, 0.9, 1, 7))).matched_fraction == 0


def test_a_proposal_that_only_the_candidate_makes_counts_too() -> None:
    comparison = compared(proposals((BOX, 0.9, 0, 7)), proposals((BOX, 0.9, 0, 7), (BOX, 0.9, 0, 8)))
    assert comparison.matched_fraction == pytest.approx(2 / 3)


def test_a_box_that_moved_is_measured_and_beyond_the_iou_is_lost() -> None:
    reference = proposals((BOX, 0.9, 0, 7), (BOX, 0.9, 0, 8))
    near, far = (12.0, 10.0, 52.0, 50.0), (40.0, 10.0, 80.0, 50.0)
    comparison = compared(reference, proposals((near, 0.9, 0, 7), (far, 0.9, 0, 8)))
    assert comparison.matched_fraction == 0.5
    assert comparison.max_box_px == 2


def test_a_proposal_near_the_threshold_need_not_be_there_but_counts_where_it_is() -> None:
    uncertain = INT8.threshold_tolerance / 2
    assert compared(proposals((BOX, 0.4 + uncertain, 0, 7)), proposals()).matched_fraction == 1
    reference = proposals((BOX, 0.9, 0, 7))
    assert compared(reference, proposals((BOX, 0.4 - uncertain, 0, 7))).matched_fraction == 1
    assert compared(reference, proposals((BOX, 0.2, 0, 7))).matched_fraction == 0


def test_order_does_not_matter_and_every_prior_may_propose() -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 200, (4000, 2))
    boxes = np.concatenate([corner, corner + 40], axis=1).astype(np.float32)
    rows, class_ids = np.divmod(rng.permutation(8000)[:4000], 2)
    everything = Candidates(boxes, np.full(4000, 0.9, np.float32), class_ids, rows)
    order = rng.permutation(4000)
    shuffled = Candidates(boxes[order], everything.scores, class_ids[order], rows[order])
    comparison = compared(everything, shuffled)
    assert (comparison.matched_fraction, comparison.max_box_px) == (1, 0)


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("reference", "candidate", "expected"),
    [
        (array(1, -2), array(1.5, -4), 2.0),
        (array(), array(), 0.0),
        (np.float32(1), np.float32(3), 2.0),
        (array(1, 2), array(1, np.nan), ERROR_LIMIT),
        (array(1, 2), array(1, np.inf), ERROR_LIMIT),
        (array(1, np.inf), array(1, np.inf), ERROR_LIMIT),
        (array(1e30), array(-1e30), ERROR_LIMIT),
        (array(1, 2), array(1, 2, 3), ERROR_LIMIT),
        (array(1, 2), array(1, 2)[None], ERROR_LIMIT),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_outputs_that_cannot_be_compared_differ_by_the_limit(
    reference: np.ndarray, candidate: np.ndarray, expected: float
) -> None:
    assert max_abs_difference(np.asarray(reference), np.asarray(candidate)) == pytest.approx(expected)
    comparison = OutputComparison(["one"])
    comparison.add({"one": np.asarray(reference)}, {"one": np.asarray(candidate)})
    (found,) = comparison.differences()
    assert (found.max_relative_error == ERROR_LIMIT) == (expected == ERROR_LIMIT)


def test_signal_and_noise_are_energies_over_all_images() -> None:
    comparison = OutputComparison(["one"])
    noisy = comparison.add({"one": array(3, -4)}, {"one": array(3, -3)})
    assert noisy == pytest.approx(1 / 25)
    comparison.add({"one": array(0, 5)}, {"one": array(0, 5)})
    (found,) = comparison.differences()
    assert found.snr_db == pytest.approx(10 * np.log10(50))
    assert found.max_relative_error == pytest.approx(1 / 4)
    assert comparison.add({"one": array(0, 0)}, {"one": array(0, 1)}) == np.inf
