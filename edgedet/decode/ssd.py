"""SSD: class logits and offsets against priors to candidate boxes (Liu et al., SSD, ECCV 2016, section 2).

Scores are thresholded before boxes are decoded. With softmax over background and classes, p_c > t implies
logit_c - logit_background > log(t / (1 - t)), so one comparison finds the priors worth an exponential.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from edgedet.boxes import Floats, Ints
from edgedet.spec import DetectorSpec, SsdPriors

# Rounding of the softmax must not lose a candidate in the comparison that comes before it.
_MARGIN_SLACK = 1e-3
# exp() of a size offset is capped as in the reference implementations: a box is at most 62.5 times its prior.
_MAX_LOG_RATIO = math.log(1000 / 16)


@lru_cache(maxsize=16)
def priors_cxcywh(priors: SsdPriors, size_hw: tuple[int, int]) -> Floats:
    """Centres and sizes of all priors, `[priors.count, 4]` in pixels of the input tensor; read-only.

    Order: feature map, row, column, prior of the cell (`SsdPriors` gives the order in a cell).
    """
    side_hw = np.array(size_hw, np.float64)
    blocks = []
    for index, (rows, columns) in enumerate(priors.feature_maps_hw):
        scale, following = priors.scales[index], priors.scales[index + 1]
        sides = [(scale, scale), (math.sqrt(scale * following),) * 2]
        for ratio in priors.aspect_ratios[index]:
            root = math.sqrt(ratio)
            sides += [(scale * root, scale / root), (scale / root, scale * root)]
        block = np.empty((rows, columns, len(sides), 4))
        block[..., 0] = (np.arange(columns)[None, :, None] + 0.5) / columns
        block[..., 1] = (np.arange(rows)[:, None, None] + 0.5) / rows
        block[..., 2:] = sides
        blocks.append(block.reshape(-1, 4))
    result = np.concatenate(blocks)
    if priors.clip:
        low = (result[:, :2] - result[:, 2:] / 2).clip(0, 1)
        high = (result[:, :2] + result[:, 2:] / 2).clip(0, 1)
        result = np.concatenate([(low + high) / 2, high - low], axis=1)
    pixels = (result * side_hw[[1, 0, 1, 0]]).astype(np.float32)
    pixels.setflags(write=False)
    return pixels


def decode_offsets(offsets: Floats, priors: Floats, variances: tuple[float, float]) -> Floats:
    """Offsets `[n, 4]` against priors `[n, 4]` (centre and size), as corners in pixels of the tensor."""
    # Whole columns, contiguous: twice as fast as pairs of numbers.
    moved, scaled = np.split(np.ascontiguousarray(offsets.T), 2)
    centre, size = np.split(np.ascontiguousarray(priors.T), 2)
    centre = centre + moved * np.float32(variances[0]) * size
    half = size * np.exp(np.minimum(scaled * np.float32(variances[1]), _MAX_LOG_RATIO)) * np.float32(0.5)
    return np.ascontiguousarray(np.concatenate([centre - half, centre + half]).T)


def encode_offsets(boxes_cxcywh: Floats, priors: Floats, variances: tuple[float, float]) -> Floats:
    """The inverse of `decode_offsets`, from centre and size: what the network learns."""
    centre = (boxes_cxcywh[:, :2] - priors[:, :2]) / priors[:, 2:] / np.float32(variances[0])
    size = np.log(boxes_cxcywh[:, 2:] / priors[:, 2:]) / np.float32(variances[1])
    return np.concatenate([centre, size], axis=1).astype(np.float32)


def candidates(
    outputs: Mapping[str, Floats], spec: DetectorSpec, score_threshold: float
) -> tuple[Floats, Floats, Ints, Ints]:
    """Boxes in pixels of the input tensor, scores, class ids and priors of what is above the threshold.

    What is not a number is not above it; a box that is not finite is left to the caller.
    """
    logits = outputs[spec.output("class_logits").name][0]
    offsets = outputs[spec.output("box_offsets").name][0]
    # The difference of logits that are near each other is exact, whatever their size.
    worthy = logits[:, 1:] - logits[:, :1] > _least_margin(score_threshold)
    rows, class_ids = np.divmod(np.flatnonzero(worthy), worthy.shape[1])
    exponents = np.ascontiguousarray(logits[rows].T)  # reduced along whole columns
    exponents -= exponents.max(axis=0)
    np.exp(exponents, out=exponents)
    scores = exponents[class_ids + 1, np.arange(len(rows))] / exponents.sum(axis=0)
    hit = scores > score_threshold
    rows, class_ids, scores = rows[hit], class_ids[hit], scores[hit]
    priors = priors_cxcywh(spec.decoder.priors, spec.input.size_hw)
    boxes = decode_offsets(offsets[rows], priors[rows], spec.decoder.variances)
    return boxes, scores, class_ids, rows


def _least_margin(score_threshold: float) -> float:
    """What a class's logit is above the background's, at least, where its score is above the threshold."""
    if score_threshold <= 0:
        return -math.inf
    if score_threshold >= 1:
        return math.inf
    return math.log(score_threshold / (1 - score_threshold)) - _MARGIN_SLACK
