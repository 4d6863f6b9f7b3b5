"""Boxes and what is computed from them alone.

The convention of the whole project: `boxes_xyxy` is float32 `[n, 4]` in pixels of the original image, x to
the right, y down, half-open (a box of one pixel at the origin is 0, 0, 1, 1), so that width = x2 - x1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# Candidates are compared in blocks of this many: the matrices of a block fit a core's cache, and memory does
# not grow with the square of the candidates. The first is small: the best few suppress most of the others.
_FIRST_NMS_BLOCK, _NMS_BLOCK = 64, 256
# Keeps 0 / 0 of two empty boxes from being NaN.
_SMALLEST_UNION = np.finfo(np.float32).tiny


def area(boxes_xyxy: Floats) -> Floats:
    """Areas `[n]` in square pixels."""
    return (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])


def iou(a_xyxy: Floats, b_xyxy: Floats) -> Floats:
    """Intersection over union of every box of `a` with every box of `b`, `[len(a), len(b)]`."""
    # Whole columns, contiguous, and buffers that are used again: several times as fast as arrays [n, m, 2].
    ax1, ay1, ax2, ay2 = np.ascontiguousarray(a_xyxy.T)[:, :, None]
    bx1, by1, bx2, by2 = np.ascontiguousarray(b_xyxy.T)[:, None, :]
    overlap = np.minimum(ax2, bx2)
    scratch = np.maximum(ax1, bx1)
    overlap -= scratch
    np.maximum(overlap, 0, out=overlap)
    height = np.minimum(ay2, by2)
    height -= np.maximum(ay1, by1, out=scratch)
    np.maximum(height, 0, out=height)
    overlap *= height
    union = np.add((ax2 - ax1) * (ay2 - ay1), (bx2 - bx1) * (by2 - by1), out=scratch)
    union -= overlap
    np.maximum(union, _SMALLEST_UNION, out=union)
    overlap /= union
    return np.asarray(overlap)


def paired_iou(a_xyxy: Floats, b_xyxy: Floats) -> Floats:
    """Intersection over union of each box of `a` with the box of `b` in the same place, `[len(a)]`."""
    sides = np.minimum(a_xyxy[:, 2:], b_xyxy[:, 2:]) - np.maximum(a_xyxy[:, :2], b_xyxy[:, :2])
    overlap = sides.clip(0).prod(axis=1)
    union = area(a_xyxy) + area(b_xyxy) - overlap
    return np.asarray(overlap / np.maximum(union, _SMALLEST_UNION))


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


def nms(
    boxes_xyxy: Floats, scores: Floats, class_ids: Ints, iou_threshold: float, limit: int | None = None
) -> Ints:
    """Greedy non-maximum suppression, each class for itself.

    A box goes when its IoU with a kept box of its class is above the threshold. Equal scores keep their
    order. The result is that of torchvision's `nms` on every class.

    Args:
        boxes_xyxy: `[n, 4]`.
        scores: `[n]`.
        class_ids: `[n]`.
        iou_threshold: Highest IoU, inclusive, of two boxes of one class that both stay.
        limit: Stop after so many; those are the first of what would stay.

    Returns:
        Indices `[k]` of the boxes that stay, by descending score.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, classes = boxes_xyxy[order], class_ids[order]
    threshold = _float32_at_most(iou_threshold)
    limit = len(order) if limit is None else limit
    kept = np.empty(0, np.int64)
    for start in (0, *range(_FIRST_NMS_BLOCK, len(order), _NMS_BLOCK)):
        if len(kept) >= limit:
            break
        size = _NMS_BLOCK if start else _FIRST_NMS_BLOCK
        block = np.arange(start, min(start + size, len(order)))
        if len(kept):
            hit = _suppresses(boxes[kept], classes[kept], boxes[block], classes[block], threshold)
            block = block[~hit.any(axis=0)]
        hit = _suppresses(boxes[block], classes[block], boxes[block], classes[block], threshold)
        kept = np.concatenate([kept, block[_greedy(hit)]])
    return np.asarray(order[kept[:limit]], np.int64)


def _suppresses(
    boxes_xyxy: Floats, class_ids: Ints, other_xyxy: Floats, other_ids: Ints, threshold: np.float32
) -> NDArray[np.bool_]:
    """Whether each box would suppress each other box, `[n, m]`."""
    result = iou(boxes_xyxy, other_xyxy) > threshold
    result &= class_ids[:, None] == other_ids
    return result


def _greedy(suppresses: NDArray[np.bool_]) -> Ints:
    """Which of boxes in order of score stay, given which suppresses which."""
    gone = np.zeros(len(suppresses), bool)
    kept = []
    for index, row in enumerate(suppresses):
        if not gone[index]:
            kept.append(index)
            gone |= row
    return np.array(kept, np.int64)


def _float32_at_most(threshold: float) -> np.float32:
    """The largest float32 that is not above: x > it is x > threshold for every float32 x."""
    nearest = np.float32(threshold)
    return nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-np.inf))
