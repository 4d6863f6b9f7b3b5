"""What differs between a reference and a candidate, stage by stage, over images that are seen once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedet.boxes import Floats, Ints, paired_iou
from edgedet.decode import Candidates
from edgedet.detections import Detections
from edgedet.parity.budgets import Budget
from edgedet.parity.distributions import DistributionCounter
from edgedet.parity.matching import Matching, match
from edgedet.parity.report import ComparedImage, ComparedObject, Outcome, OutputDifference
from edgedet.parity.snr import snr_db

# Reports hold finite numbers: what cannot be compared differs by this.
ERROR_LIMIT = 1e9

WORST_IMAGES = 3

# Room for a class in the number that tells proposals apart.
_CLASS_BITS = 20


def max_abs_difference(reference: Floats, candidate: Floats) -> float:
    """Largest difference of an element; `ERROR_LIMIT` where it is more, not finite, or the shapes differ."""
    if reference.shape != candidate.shape:
        return ERROR_LIMIT
    return _largest(_abs_error(reference, candidate))


def _abs_error(reference: Floats, candidate: Floats) -> NDArray[np.float64]:
    """Differences of arrays of one shape, without their signs, `[n]`."""
    error = np.subtract(reference.ravel(), candidate.ravel(), dtype=np.float64)
    return np.abs(error, out=error)


def _largest(magnitudes: NDArray[np.float64]) -> float:
    worst = float(magnitudes.max(initial=0))
    return worst if worst < ERROR_LIMIT else ERROR_LIMIT  # NaN is not less


def _energy(magnitudes: NDArray[np.float64]) -> float:
    """Sum of squares; the array is overwritten."""
    return float(np.square(magnitudes, out=magnitudes).sum())


@dataclass(slots=True)
class _Sums:
    """Running sums of one output tensor."""

    signal: float = 0.0
    noise: float = 0.0
    max_relative_error: float = 0.0


@dataclass(frozen=True, slots=True)
class ImageOutputs:
    """Raw outputs of one image: those of the output that is worst in each respect."""

    max_relative_error: float
    snr_db: float


@dataclass(frozen=True, slots=True)
class ImageBoxes:
    """Boxes of one image before suppression."""

    matched_fraction: float
    max_box_px: float


@dataclass(frozen=True, slots=True)
class ImageDetections:
    """Detections of one image by what became of them, with the class of each that has no partner."""

    image_id: str
    matched: int
    excused: int
    lost_ids: tuple[int, ...]
    gained_ids: tuple[int, ...]
    max_score_delta: float
    max_box_px: float

    def unmatched(self, class_id: int) -> int:
        """Lost and gained detections of one class."""
        return self.lost_ids.count(class_id) + self.gained_ids.count(class_id)


class OutputComparison:
    """Raw outputs against those of a reference.

    Args:
        names: Names of the output tensors.

    Attributes:
        images: One an image, in their order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._sums = {name: _Sums() for name in names}
        self.images: list[ImageOutputs] = []

    def add(self, reference: Mapping[str, Floats], candidate: Mapping[str, Floats]) -> float:
        """Take one image's outputs; returns the largest share of an output's energy that is noise."""
        worst, worst_relative, lowest_db = 0.0, 0.0, snr_db(1.0, 0.0)
        for name, sums in self._sums.items():
            same_shape = reference[name].shape == candidate[name].shape
            error = _abs_error(reference[name], candidate[name]) if same_shape else np.array([math.inf])
            difference = _largest(error)
            if difference == ERROR_LIMIT:
                sums.noise, sums.max_relative_error = math.inf, ERROR_LIMIT
                worst, worst_relative, lowest_db = math.inf, ERROR_LIMIT, snr_db(1.0, math.inf)
                continue
            noise = _energy(error)
            expected = np.abs(reference[name].astype(np.float64).ravel())
            largest = float(expected.max(initial=0))
            signal = _energy(expected)
            relative = difference / largest if largest else ERROR_LIMIT * (difference > 0)
            relative = min(relative, ERROR_LIMIT)
            sums.max_relative_error = max(sums.max_relative_error, relative)
            sums.signal += signal
            sums.noise += noise
            worst = max(worst, noise / signal if signal else math.inf if noise else 0.0)
            worst_relative, lowest_db = max(worst_relative, relative), min(lowest_db, snr_db(signal, noise))
        self.images.append(ImageOutputs(worst_relative, lowest_db))
        return worst

    def differences(self) -> tuple[OutputDifference, ...]:
        """One value an output."""
        return tuple(
            OutputDifference(
                name=name, max_relative_error=sums.max_relative_error, snr_db=snr_db(sums.signal, sums.noise)
            )
            for name, sums in self._sums.items()
        )


class DecodedComparison:
    """Boxes before suppression: each certain one of either side against the other's of that prior and class.

    Suppression turns a small difference of score into another box; here that cannot happen, so that a
    difference comes from the raw outputs or from a decoder that was given other parameters.

    Args:
        budget: Says which box is the same and how near to the threshold a score is uncertain.
        score_threshold: The detector's threshold.

    Attributes:
        images: One an image, in their order.
        max_box_px: Largest difference of a coordinate of boxes that are the same.
    """

    def __init__(self, budget: Budget, score_threshold: float) -> None:
        self._budget = budget
        self._certain = score_threshold + budget.threshold_tolerance
        self._possible = score_threshold - budget.threshold_tolerance
        self._total = 0
        self._found = 0
        self.max_box_px = 0.0
        self.images: list[ImageBoxes] = []

    def add(self, reference: Candidates, candidate: Candidates) -> None:
        """Take one image's candidates, which should reach down to the threshold less the tolerance."""
        lost_from, not_lost, one_px = self._look_for(reference, candidate)
        gained_from, not_gained, other_px = self._look_for(candidate, reference)
        total, found, farthest = lost_from + gained_from, not_lost + not_gained, max(one_px, other_px)
        self._total += total
        self._found += found
        self.max_box_px = max(self.max_box_px, farthest)
        self.images.append(ImageBoxes(found / total if total else 1.0, farthest))

    @property
    def matched_fraction(self) -> float:
        """Share of certain boxes, of both sides, that the other side has; 1 where there are none."""
        return self._found / self._total if self._total else 1.0

    def _look_for(self, wanted: Candidates, pool: Candidates) -> tuple[int, int, float]:
        """How many are certain, how many of them are in the pool, and how far the farthest of these is."""
        certain = np.flatnonzero(wanted.scores > self._certain)
        possible = np.flatnonzero(pool.scores > self._possible)
        _, ours, theirs = np.intersect1d(
            _proposals(wanted, certain), _proposals(pool, possible), assume_unique=True, return_indices=True
        )
        boxes = wanted.boxes_xyxy[certain[ours]]
        others = pool.boxes_xyxy[possible[theirs]]
        same = paired_iou(boxes, others) >= self._budget.matched_iou
        farthest = float(np.abs(boxes[same] - others[same]).max(initial=0))
        return len(certain), int(same.sum()), farthest


def _proposals(candidates: Candidates, chosen: Ints) -> Ints:
    """One number for the row and class that each of the chosen candidates comes from."""
    return candidates.rows[chosen] << _CLASS_BITS | candidates.class_ids[chosen]


@dataclass(slots=True)
class MatchCount:
    """Detections by what became of them, and how many the reference has."""

    matched: int = 0
    lost: int = 0
    gained: int = 0
    excused: int = 0
    reference_objects: int = 0

    def add(self, matching: Matching) -> None:
        """Take what became of one image's detections."""
        self.matched += len(matching.pairs)
        self.lost += len(matching.lost)
        self.gained += len(matching.gained)
        self.excused += len(matching.excused_lost) + len(matching.excused_gained)

    @property
    def matched_fraction(self) -> float:
        """Share of detections, of both sides, that have a partner; 1 where there are none."""
        total = 2 * self.matched + self.lost + self.gained
        return 2 * self.matched / total if total else 1.0


@dataclass(slots=True)
class DetectionComparison:
    """Detections after suppression against those of a reference.

    Attributes:
        labels: Names of the classes.
        budget: Says which detection is the same and how near to the threshold a score is uncertain.
        score_threshold: The detector's threshold, at which both sides are cut.
        reference_objects: Detections of the reference; where there are none, nothing was compared.
        images: One an image, in their order.
        counter: How far partners differ.
    """

    labels: Sequence[str]
    budget: Budget
    score_threshold: float
    reference_objects: int = 0
    matched: int = 0
    lost: int = 0
    gained: int = 0
    excused: int = 0
    max_score_delta: float = 0.0
    max_box_px: float = 0.0
    by_class: dict[int, MatchCount] = field(default_factory=dict)
    worst: list[ComparedImage] = field(default_factory=list)
    images: list[ImageDetections] = field(default_factory=list)
    counter: DistributionCounter = field(default_factory=DistributionCounter)

    def add(self, image_id: str, reference: Detections, candidate: Detections) -> None:
        """Take one image's detections; those not above the threshold are left out here."""
        reference, candidate = reference.above(self.score_threshold), candidate.above(self.score_threshold)
        matching = match_within(self.budget, self.score_threshold, reference, candidate)
        self.reference_objects += len(reference)
        self.matched += len(matching.pairs)
        self.lost += len(matching.lost)
        self.gained += len(matching.gained)
        self.excused += len(matching.excused_lost) + len(matching.excused_gained)
        self.max_score_delta = max(self.max_score_delta, matching.max_score_delta)
        self.max_box_px = max(self.max_box_px, matching.max_box_px)
        self.counter.add(reference, candidate, matching)
        self._count(reference, candidate, matching)
        self._remember(image_id, reference, candidate, matching)
        self.images.append(
            ImageDetections(
                image_id=image_id,
                matched=len(matching.pairs),
                excused=len(matching.excused_lost) + len(matching.excused_gained),
                lost_ids=tuple(reference.class_ids[matching.lost].tolist()),
                gained_ids=tuple(candidate.class_ids[matching.gained].tolist()),
                max_score_delta=matching.max_score_delta,
                max_box_px=matching.max_box_px,
            )
        )

    @property
    def matched_fraction(self) -> float:
        """Share of detections, of both sides, that have a partner; 1 where there are none."""
        return MatchCount(self.matched, self.lost, self.gained).matched_fraction

    def _count(self, reference: Detections, candidate: Detections, matching: Matching) -> None:
        for outcome, class_ids in (
            ("reference_objects", reference.class_ids),
            ("matched", reference.class_ids[matching.pairs[:, 0]]),
            ("lost", reference.class_ids[matching.lost]),
            ("gained", candidate.class_ids[matching.gained]),
            ("excused", reference.class_ids[matching.excused_lost]),
            ("excused", candidate.class_ids[matching.excused_gained]),
        ):
            for class_id, found in Counter(class_ids.tolist()).items():
                count = self.by_class.setdefault(class_id, MatchCount())
                setattr(count, outcome, getattr(count, outcome) + found)

    def _remember(
        self, image_id: str, reference: Detections, candidate: Detections, matching: Matching
    ) -> None:
        if not len(reference) and not len(candidate):
            return
        if len(self.worst) == WORST_IMAGES and _badness(self.worst[-1]) >= _badness(matching):
            return
        image = ComparedImage(
            image_id=image_id,
            lost=len(matching.lost),
            gained=len(matching.gained),
            max_score_delta=matching.max_score_delta,
            max_box_px=matching.max_box_px,
            objects=_compared_objects(reference, candidate, matching, self.labels),
        )
        self.worst = sorted([*self.worst, image], key=_badness, reverse=True)[:WORST_IMAGES]


def match_within(
    budget: Budget, score_threshold: float, reference: Detections, candidate: Detections
) -> Matching:
    """`match` as a budget says; both sides were cut at the detector's threshold."""
    return match(
        reference,
        candidate,
        iou_threshold=budget.matched_iou,
        score_threshold=score_threshold,
        threshold_tolerance=budget.threshold_tolerance,
    )


def _badness(image: ComparedImage | Matching) -> tuple[int, float]:
    if isinstance(image, Matching):
        return len(image.lost) + len(image.gained), image.max_score_delta
    return image.lost + image.gained, image.max_score_delta


def _compared_objects(
    reference: Detections, candidate: Detections, matching: Matching, labels: Sequence[str]
) -> tuple[ComparedObject, ...]:
    """Every detection of either side, in the order in which a reader of the report looks for them."""

    def alone(detections: Detections, indices: Ints, outcome: Outcome) -> list[ComparedObject]:
        sides = _as_reference if detections is reference else _as_candidate
        return [
            ComparedObject(label=labels[detections.class_ids[i]], outcome=outcome, **sides(detections, i))
            for i in indices.tolist()
        ]

    pairs = [
        ComparedObject(
            label=labels[reference.class_ids[i]],
            outcome="matched",
            **_as_reference(reference, i),
            **_as_candidate(candidate, j),
        )
        for i, j in matching.pairs.tolist()
    ]
    return (
        *pairs,
        *alone(reference, matching.lost, "lost"),
        *alone(reference, matching.excused_lost, "excused"),
        *alone(candidate, matching.gained, "gained"),
        *alone(candidate, matching.excused_gained, "excused"),
    )


def _as_reference(detections: Detections, index: int) -> dict[str, Any]:
    box, score = _rounded(detections, index)
    return {"reference_box_xyxy": box, "reference_score": score}


def _as_candidate(detections: Detections, index: int) -> dict[str, Any]:
    box, score = _rounded(detections, index)
    return {"box_xyxy": box, "score": score}


def _rounded(detections: Detections, index: int) -> tuple[tuple[float, ...], float]:
    """Box and score with the digits that a reader of a report can use."""
    box = tuple(round(float(value), 2) for value in detections.boxes_xyxy[index])
    return box, round(float(detections.scores[index]), 6)
