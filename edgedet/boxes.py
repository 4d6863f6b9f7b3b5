"""Boxes and what is computed from them alone.

The convention of the whole project: `boxes_xyxy` is float32 `[n, 4]` in pixels of the original image, x to the right, y
down, half-open (a box of one pixel at the origin is 0, 0, 1, 1), so that width = x2 - x1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# Candidates are compared in blocks of this many, so that memory is bounded by block x kept and the work stays in numpy.
_NMS_BLOCK = 512


def area(boxes_xyxy: Floats) -> Floats:
    """Areas `[n]` in square pixels."""
    return (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])


def iou(a_xyxy: Floats, b_xyxy: Floats) -> Floats:
    """Intersection over union of every box of `a` with every box of `b`, `[len(a), len(b)]`; 0 for empty boxes."""
    top_left = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    bottom_right = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    sides = np.maximum(bottom_right - top_left, 0)
    intersection = sides[..., 0] * sides[..., 1]
    union = area(a_xyxy)[:, None] + area(b_xyxy)[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def clip(boxes_xyxy: Floats, size_hw: tuple[int, int]) -> Floats:
    """Boxes clipped to an image of `size_hw`."""
    height, width = size_hw
    return np.clip(boxes_xyxy, 0, np.array([width, height, width, height], boxes_xyxy.dtype))


def cxcywh_to_xyxy(boxes_cxcywh: Floats) -> Floats:
    """Centre and size to corners."""
    half = boxes_cxcywh[:, 2:] * 0.5
    return np.concatenate([boxes_cxcywh[:, :2] - half, boxes_cxcywh[:, :2] + half], axis=1)


def xyxy_to_cxcywh(boxes_xyxy: Floats) -> Floats:
    """Corners to centre and size."""
    size = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    return np.concatenate([boxes_xyxy[:, :2] + size * 0.5, size], axis=1)


def nms(boxes_xyxy: Floats, scores: Floats, class_ids: Ints, iou_threshold: float) -> Ints:
    """Greedy non-maximum suppression, each class for itself.

    A box goes when its IoU with a kept box of its class is above the threshold. Equal scores keep their order. The result
    is that of torchvision's `batched_nms`.

    Returns:
        Indices `[k]` of the boxes that stay, by descending score.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, classes = boxes_xyxy[order], class_ids[order]
    kept = np.empty(0, np.int64)
    for start in range(0, len(order), _NMS_BLOCK):
        block = np.arange(start, min(start + _NMS_BLOCK, len(order)))
        if len(kept):
            overlaps = iou(boxes[block], boxes[kept]) > iou_threshold
            overlaps &= classes[block, None] == classes[None, kept]
            block = block[~overlaps.any(axis=1)]
        kept = np.concatenate([kept, block[_survivors(boxes[block], classes[block], iou_threshold)]])
    return np.asarray(order[kept], np.int64)


def _survivors(boxes_xyxy: Floats, class_ids: Ints, iou_threshold: float) -> Ints:
    """Greedy suppression among boxes that are already in order of score."""
    suppresses = iou(boxes_xyxy, boxes_xyxy) > iou_threshold
    suppresses &= class_ids[:, None] == class_ids[None, :]
    alive = np.ones(len(boxes_xyxy), bool)
    for index in range(len(boxes_xyxy)):
        if alive[index]:
            alive[index + 1 :] &= ~suppresses[index, index + 1 :]
    return np.flatnonzero(alive)
