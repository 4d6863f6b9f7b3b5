"""Which detection of one detector is which of another.

One to one within a class: as many pairs as there can be, and of those the most IoU in sum (the Hungarian
method; Kuhn, Naval Research Logistics 2, 1955). Where both sides went through suppression nothing has to be
decided: 1 - IoU is a metric, so that two boxes that both overlap a third by t or more overlap each other by
at least 2t - 1; suppression at n leaves none above n, and a budget's t of 0.8 is above (1 + n) / 2 for the
usual n of 0.45. No box then has more than one possible partner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgedet.boxes import Ints, iou
from edgedet.detections import Detections

# Less than any difference of IoU that is one.
_TIE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """Detections of one image in a reference and in a candidate.

    Attributes:
        pairs: Indices `[m, 2]` into reference and candidate.
        lost: Indices into the reference of those without a partner.
        gained: Indices into the candidate of those without a partner.
        excused_lost: Like `lost`, with a score so close to the threshold that it may be missing.
        excused_gained: Like `gained`, likewise.
        max_score_delta: Largest difference of score of a pair; 0 without pairs.
        max_box_px: Largest difference of a coordinate of a pair, in pixels of the image; 0 without pairs.
    """

    pairs: Ints
    lost: Ints
    gained: Ints
    excused_lost: Ints
    excused_gained: Ints
    max_score_delta: float
    max_box_px: float


def match(
    reference: Detections,
    candidate: Detections,
    *,
    iou_threshold: float,
    score_threshold: float = 0.0,
    threshold_tolerance: float = 0.0,
) -> Matching:
    """Pair detections of one class one to one.

    Args:
        reference: What should have been detected.
        candidate: What was detected.
        iou_threshold: Least IoU of a pair.
        score_threshold: The threshold that both sides were cut at.
        threshold_tolerance: A detection without a partner whose score is within this of `score_threshold` is
            excused.
    """
    pairs = _pairs(reference, candidate, iou_threshold)
    certain = score_threshold + threshold_tolerance
    lost, excused_lost = _unpaired(reference, pairs[:, 0], certain)
    gained, excused_gained = _unpaired(candidate, pairs[:, 1], certain)
    scores = np.abs(reference.scores[pairs[:, 0]] - candidate.scores[pairs[:, 1]])
    boxes = np.abs(reference.boxes_xyxy[pairs[:, 0]] - candidate.boxes_xyxy[pairs[:, 1]])
    return Matching(
        pairs=pairs,
        lost=lost,
        gained=gained,
        excused_lost=excused_lost,
        excused_gained=excused_gained,
        max_score_delta=float(scores.max(initial=0)),
        max_box_px=float(boxes.max(initial=0)),
    )


def _pairs(reference: Detections, candidate: Detections, iou_threshold: float) -> Ints:
    overlaps = iou(reference.boxes_xyxy, candidate.boxes_xyxy)
    same_class = reference.class_ids[:, None] == candidate.class_ids[None, :]
    possible = same_class & (overlaps >= iou_threshold)
    if (possible.sum(axis=0) <= 1).all() and (possible.sum(axis=1) <= 1).all():
        return np.argwhere(possible)
    from scipy.optimize import linear_sum_assignment

    # A pair more is worth more than all IoU together. Equal boxes are paired by score, so that a set with
    # duplicates matches itself exactly.
    score_deltas = np.abs(reference.scores[:, None] - candidate.scores[None, :])
    worth = min(possible.shape) + 1 + overlaps.astype(np.float64) - _TIE * score_deltas
    rows, columns = linear_sum_assignment(np.where(possible, worth, 0.0), maximize=True)
    pairs: Ints = np.stack([rows, columns], axis=1)
    return np.asarray(pairs[possible[rows, columns]])


def _unpaired(detections: Detections, paired: Ints, certain_score: float) -> tuple[Ints, Ints]:
    """Indices of those without a partner: above the score, and not above it."""
    is_alone = np.ones(len(detections), bool)
    is_alone[paired] = False
    alone = np.flatnonzero(is_alone)
    certain = detections.scores[alone] > certain_score
    return alone[certain], alone[~certain]
