"""Pascal VOC average precision at one IoU threshold, in numpy.

Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010, section 4.2, and the development
kit's VOCevaldet.m. Detections are visited by descending score; each looks at the object of its class that it
overlaps most: at the threshold or above it is right when the object is not yet taken, wrong when it is, and
not counted when the object is to be ignored. Boxes are half-open here (`edgedet.boxes`); the kit adds a pixel
a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgedet.boxes import iou
from edgedet.evaluate.accuracy import EvaluatedImage


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Right and wrong detections of one class by descending score, counted up.

    Attributes:
        positives: Objects to be found.
        true_positives: int64 `[n]`, right ones up to and with each detection.
        false_positives: int64 `[n]`.
    """

    positives: int
    true_positives: NDArray[np.int64]
    false_positives: NDArray[np.int64]

    def voc07_ap(self) -> float | None:
        """Mean of the best precision at recall 0, 0.1, ... 1 and beyond; None without objects."""
        if not self.positives:
            return None
        precision = self._precision()
        # Whole numbers, so that a recall of exactly 3/10 reaches the point 0.3.
        reached = [10 * self.true_positives >= point * self.positives for point in range(11)]
        return float(np.mean([precision[mask].max(initial=0.0) for mask in reached]))

    def voc10_ap(self) -> float | None:
        """Area under precision made monotonically decreasing over recall; None without objects."""
        if not self.positives:
            return None
        envelope = np.maximum.accumulate(self._precision()[::-1])[::-1]
        steps = np.diff(self.true_positives, prepend=0) / self.positives
        return float((steps * envelope).sum())

    def _precision(self) -> NDArray[np.float64]:
        # Detections of ignored objects are neither right nor wrong: there may be nothing to divide by.
        counted = self.true_positives + self.false_positives
        return np.asarray(self.true_positives / np.maximum(counted, 1), np.float64)


def voc_curve(images: Sequence[EvaluatedImage], class_id: int, iou_threshold: float = 0.5) -> Curve:
    """Judge all detections of one class; equal scores keep the order of images."""
    scores, outcomes, positives = [np.empty(0, np.float32)], [np.empty(0, np.int64)], 0
    for image in images:
        truth = image.class_ids == class_id
        positives += int((truth & ~image.ignore).sum())
        found = np.flatnonzero(image.detections.class_ids == class_id)
        if not len(found):
            continue
        found = found[np.argsort(-image.detections.scores[found], kind="stable")]
        overlaps = iou(image.detections.boxes_xyxy[found], image.boxes_xyxy[truth])
        scores.append(image.detections.scores[found])
        outcomes.append(_outcomes(overlaps, image.ignore[truth], iou_threshold))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    outcome = np.concatenate(outcomes)[order]
    return Curve(positives, np.cumsum(outcome == 1), np.cumsum(outcome == -1))


def _outcomes(
    overlaps: NDArray[np.float32], ignore: NDArray[np.bool_], threshold: float
) -> NDArray[np.int64]:
    """1 right, -1 wrong, 0 not counted: detections by descending score against the objects of an image."""
    outcome = np.full(len(overlaps), -1, np.int64)
    if not overlaps.shape[1]:
        return outcome
    taken = np.zeros(overlaps.shape[1], bool)
    best = overlaps.argmax(axis=1)
    near = np.flatnonzero(overlaps.max(axis=1) >= threshold)
    for index, choice in zip(near.tolist(), best[near].tolist(), strict=True):
        if ignore[choice]:
            outcome[index] = 0
        elif not taken[choice]:
            taken[choice] = True
            outcome[index] = 1
    return outcome
