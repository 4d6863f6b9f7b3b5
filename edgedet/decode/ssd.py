"""SSD: class logits and offsets against priors to candidate boxes (Liu et al., SSD, ECCV 2016, section 2).

Scores are thresholded before boxes are decoded. With softmax over background and classes, p_c > t implies
logit_c - logit_background > log(t / (1 - t)), so one comparison finds the priors worth an exponential.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from edgedet.boxes import Floats, Ints, cxcywh_to_xyxy
from edgedet.spec import DetectorSpec, SsdPriors

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
        cy, cx = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
        block = np.empty((rows, columns, len(sides), 4))
        block[..., 0], block[..., 1] = cx[..., None], cy[..., None]
        block[..., 2:] = np.array(sides)
        blocks.append(block.reshape(-1, 4))
    result = np.concatenate(blocks)
    if priors.clip:
        corners = np.concatenate([result[:, :2] - result[:, 2:] / 2, result[:, :2] + result[:, 2:] / 2], axis=1)
        corners = corners.clip(0, 1)
        result = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)
    result = (result * side_hw[[1, 0, 1, 0]]).astype(np.float32)
    result.setflags(write=False)
    return result


def decode_offsets(offsets: Floats, priors: Floats, variances: tuple[float, float]) -> Floats:
    """Offsets `[n, 4]` against priors `[n, 4]` (centre and size), as corners in pixels of the input tensor."""
    centre = priors[:, :2] + offsets[:, :2] * np.float32(variances[0]) * priors[:, 2:]
    size = priors[:, 2:] * np.exp(np.minimum(offsets[:, 2:] * np.float32(variances[1]), _MAX_LOG_RATIO))
    return cxcywh_to_xyxy(np.concatenate([centre, size], axis=1))


def encode_offsets(boxes_cxcywh: Floats, priors: Floats, variances: tuple[float, float]) -> Floats:
    """The inverse of `decode_offsets`, from centre and size: what the network learns."""
    centre = (boxes_cxcywh[:, :2] - priors[:, :2]) / priors[:, 2:] / np.float32(variances[0])
    size = np.log(boxes_cxcywh[:, 2:] / priors[:, 2:]) / np.float32(variances[1])
    return np.concatenate([centre, size], axis=1).astype(np.float32)


def candidates(
    outputs: Mapping[str, Floats], spec: DetectorSpec, score_threshold: float
) -> tuple[Floats, Floats, Ints]:
    """Boxes in pixels of the input tensor, scores and class ids of every (prior, class) above the threshold."""
    logits = outputs[spec.output("class_logits").name][0]
    offsets = outputs[spec.output("box_offsets").name][0]
    threshold = min(max(score_threshold, 1e-6), 1 - 1e-6)
    margin = np.float32(math.log(threshold / (1 - threshold)) - 1e-3)
    rows = np.flatnonzero(logits[:, 1:].max(axis=1) > logits[:, 0] + margin)
    exponents = logits[rows]
    exponents = np.exp(exponents - exponents.max(axis=1, keepdims=True))
    scores = exponents[:, 1:] / exponents.sum(axis=1, keepdims=True)
    hit, class_ids = np.nonzero(scores > score_threshold)
    priors = priors_cxcywh(spec.decoder.priors, spec.input.size_hw)
    boxes = decode_offsets(offsets[rows], priors[rows], spec.decoder.variances)
    return boxes[hit], scores[hit, class_ids], class_ids.astype(np.int64)
