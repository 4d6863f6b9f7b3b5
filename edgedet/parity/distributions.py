"""How far partners differ, and the scores of detections without one, counted in fixed bins.

Fixed bins need no second pass and no list of values, and reports of two runs can be laid over each other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedet.boxes import Floats, paired_iou
from edgedet.detections import Detections
from edgedet.parity.matching import Matching
from edgedet.spec import Value


def _decades(first: int, last: int) -> tuple[float, ...]:
    """0 and then 1, 2 and 5 times each power of ten: float and INT8 differ by a factor of 10^5."""
    steps = (float(f"{digit}e{power}") for power in range(first, last) for digit in (1, 2, 5))
    return (0.0, *steps, float(f"1e{last}"))


SCORE_DELTA_EDGES = _decades(-7, 0)
BOX_PX_EDGES = _decades(-5, 3)
UNIT_EDGES = tuple(round(index * 0.02, 2) for index in range(51))  # of scores and IoU


class Histogram(Value):
    """Values counted in bins.

    Attributes:
        edges: Bounds of the bins, ascending and one more than there are bins.
        counts: Values in each; one at a bound belongs to the bin above it, one beyond the outer bounds to the
            outer bin.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        """How many values there are."""
        return sum(self.counts)


class Distributions(Value):
    """Detections of one artifact beside those of its reference.

    Attributes:
        mean_score_delta: Mean over pairs of the artifact's score less its reference's; None without pairs.
        score_delta: Difference of score of each pair, without its sign.
        box_px: Largest difference of a coordinate of each pair, in pixels of the image.
        iou: IoU of each pair.
        lost_scores: Scores of what only the reference found.
        gained_scores: Scores of what only the artifact found.
        excused_scores: Scores of what is on one side only, too close to the threshold to count.
    """

    mean_score_delta: float | None
    score_delta: Histogram
    box_px: Histogram
    iou: Histogram
    lost_scores: Histogram
    gained_scores: Histogram
    excused_scores: Histogram


# Arrays that wait to be counted together: of an image's few values that takes longer than of many.
_MOST_WAITING = 64


class DistributionCounter:
    """Counts image by image; what it holds does not grow with them."""

    def __init__(self) -> None:
        self._score_delta, self._box_px = _Bins(SCORE_DELTA_EDGES), _Bins(BOX_PX_EDGES)
        self._iou, self._lost, self._gained, self._excused = (_Bins(UNIT_EDGES) for _ in range(4))
        self._score_sum, self._pairs = 0.0, 0

    def add(self, reference: Detections, candidate: Detections, matching: Matching) -> None:
        """Take one image's detections and which of them are partners."""
        ours, theirs = matching.pairs[:, 0], matching.pairs[:, 1]
        moved = candidate.scores[theirs].astype(np.float64) - reference.scores[ours]
        boxes, others = reference.boxes_xyxy[ours], candidate.boxes_xyxy[theirs]
        self._score_sum += float(moved.sum())
        self._pairs += len(moved)
        self._score_delta.add(np.abs(moved))
        self._box_px.add(np.abs(boxes - others).max(axis=1, initial=0))
        self._iou.add(paired_iou(boxes, others))
        self._lost.add(reference.scores[matching.lost])
        self._gained.add(candidate.scores[matching.gained])
        self._excused.add(reference.scores[matching.excused_lost])
        self._excused.add(candidate.scores[matching.excused_gained])

    def distributions(self) -> Distributions:
        """What was counted so far."""
        return Distributions(
            mean_score_delta=self._score_sum / self._pairs if self._pairs else None,
            score_delta=self._score_delta.histogram(),
            box_px=self._box_px.histogram(),
            iou=self._iou.histogram(),
            lost_scores=self._lost.histogram(),
            gained_scores=self._gained.histogram(),
            excused_scores=self._excused.histogram(),
        )


class _Bins:
    def __init__(self, edges: tuple[float, ...]) -> None:
        self._edges = edges
        # float32 scores lie beside the decimal bounds: 0.4 as float32 is above 0.4 and 0.58 below 0.58.
        self._bounds = np.array(edges, np.float32)
        self._counts = np.zeros(len(edges) - 1, np.int64)
        self._waiting: list[Floats] = []

    def add(self, values: Floats | NDArray[np.float64]) -> None:
        if not len(values):
            return
        self._waiting.append(values.astype(np.float32))
        if len(self._waiting) == _MOST_WAITING:
            self._count()

    def histogram(self) -> Histogram:
        self._count()
        return Histogram(edges=self._edges, counts=tuple(self._counts.tolist()))

    def _count(self) -> None:
        if not self._waiting:
            return
        places = np.searchsorted(self._bounds, np.concatenate(self._waiting), side="right")
        places = np.clip(places - 1, 0, len(self._counts) - 1)
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._waiting.clear()
