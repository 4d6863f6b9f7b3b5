"""Ground truth to what the network should say: matching of boxes and priors (SSD, ECCV 2016, section 2.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedet.boxes import Floats, Ints, cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from edgedet.decode.ssd import encode_offsets, priors_cxcywh
from edgedet.spec import DetectorSpec

BACKGROUND, IGNORED = 0, -1
_MATCH_IOU = 0.5


def match(ious: Floats) -> Ints:
    """Give every prior its ground truth.

    Each ground truth takes its best prior that no other took, the most overlapping one first; each prior left
    takes the ground truth of highest IoU if above 0.5.

    Args:
        ious: IoU of ground truth and priors, `[n, P]`.

    Returns:
        Index of the ground truth for each prior, `[P]`; -1 where there is none.
    """
    boxes, priors = ious.shape
    matched = np.full(priors, -1, np.int64)
    if not boxes:
        return matched
    best = ious.argmax(axis=0)
    above = ious[best, np.arange(priors)] > _MATCH_IOU
    matched[above] = best[above]
    free = np.ones(priors, bool)
    for box in np.argsort(-ious.max(axis=1), kind="stable")[:priors]:
        prior = int(np.where(free, ious[box], -1).argmax())
        matched[prior], free[prior] = box, False
    return matched


class TargetEncoder:
    """Boxes in the input tensor to offsets and labels of every prior.

    Args:
        spec: Of the detector, with an SSD decoder.
    """

    def __init__(self, spec: DetectorSpec) -> None:
        self._variances = spec.decoder.variances
        self._priors = priors_cxcywh(spec.decoder.priors, spec.input.size_hw)
        self._priors_xyxy = cxcywh_to_xyxy(self._priors)

    def __call__(self, boxes_xyxy: Floats, class_ids: Ints, ignore: NDArray[np.bool_]) -> tuple[Floats, Ints]:
        """Encode one image.

        Args:
            boxes_xyxy: `[n, 4]` in pixels of the input tensor, none empty.
            class_ids: `[n]`.
            ignore: `[n]`; priors on these are neither positive nor negative.

        Returns:
            Offsets `[P, 4]`, zero where there is no object, and labels `[P]`: 0 background, class id + 1, -1
            ignored.
        """
        offsets = np.zeros_like(self._priors)
        labels = np.full(len(self._priors), BACKGROUND, np.int64)
        if ignore.any():
            labels[(iou(boxes_xyxy[ignore], self._priors_xyxy) > _MATCH_IOU).any(axis=0)] = IGNORED
        boxes, classes = boxes_xyxy[~ignore], class_ids[~ignore]
        matched = match(iou(boxes, self._priors_xyxy))
        positive = matched >= 0
        labels[positive] = classes[matched[positive]] + 1
        offsets[positive] = encode_offsets(
            xyxy_to_cxcywh(boxes)[matched[positive]], self._priors[positive], self._variances
        )
        return offsets, labels
