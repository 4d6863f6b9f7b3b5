"""Raw output tensors to detections: one implementation, numpy only, for every runtime.

One file per head family, found through `edgedet.registry.DECODERS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgedet import registry
from edgedet.boxes import Floats, Ints, clip, nms
from edgedet.detections import Detections
from edgedet.errors import UsageError
from edgedet.preprocess import Geometry
from edgedet.spec import DetectorSpec

__all__ = ["Candidates", "decode", "decode_batch", "find_candidates", "suppress"]

# More candidates than this are cut to the best before suppression, as in the reference SSD implementations.
_MAX_CANDIDATES = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What a head proposes.

    Attributes:
        boxes_xyxy: `[n, 4]` in pixels of the image.
        scores: `[n]`.
        class_ids: `[n]`.
        rows: `[n]`, where in the raw outputs each comes from (an SSD's prior): the same row and class in two
            sets of outputs is the same proposal.
    """

    boxes_xyxy: Floats
    scores: Floats
    class_ids: Ints
    rows: Ints


def find_candidates(
    outputs: Mapping[str, Floats],
    spec: DetectorSpec,
    geometry: Geometry,
    score_threshold: float | None = None,
) -> Candidates:
    """Boxes above the threshold, clipped to the image; empty ones and what is not finite are left out."""
    threshold = _share("score_threshold", score_threshold, spec.score_threshold)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is left out below
        boxes, scores, class_ids, rows = registry.DECODERS.load(spec.decoder.family)(outputs, spec, threshold)
        boxes = clip(geometry.to_image(boxes), geometry.image_hw)
    x1, y1, x2, y2 = boxes.T
    keep = (x2 > x1) & (y2 > y1)  # false for NaN; clipping has ended infinity
    if not keep.all():
        boxes, scores, class_ids, rows = boxes[keep], scores[keep], class_ids[keep], rows[keep]
    return Candidates(boxes, scores, class_ids, rows)


def suppress(
    candidates: Candidates, spec: DetectorSpec, iou_threshold: float | None = None, limit: int | None = None
) -> Detections:
    """Class-wise non-maximum suppression, then the best `limit` detections of the image."""
    boxes, scores, class_ids = candidates.boxes_xyxy, candidates.scores, candidates.class_ids
    if len(scores) > _MAX_CANDIDATES:
        best = np.argsort(-scores, kind="stable")[:_MAX_CANDIDATES]
        boxes, scores, class_ids = boxes[best], scores[best], class_ids[best]
    threshold = _share("iou_threshold", iou_threshold, spec.iou_threshold)
    keep = nms(boxes, scores, class_ids, threshold, spec.max_detections if limit is None else limit)
    return Detections(boxes[keep], scores[keep], class_ids[keep], spec.labels)


def _share(name: str, given: float | None, default: float) -> float:
    """A threshold: what was given, or what the spec says.

    Raises:
        UsageError: It is not 0 to 1.
    """
    if given is None:
        return default
    if not 0 <= given <= 1:  # false for NaN
        raise UsageError(
            f"{name} cannot be used", got=str(given), expected="0 to 1", fix="give a share, such as 0.5"
        )
    return given


def decode(
    outputs: Mapping[str, Floats],
    spec: DetectorSpec,
    geometry: Geometry,
    *,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    limit: int | None = None,
) -> Detections:
    """Raw outputs of one image to its detections; thresholds default to the spec's.

    Args:
        outputs: float32 arrays by the names of `spec.outputs`, each of one image.
        spec: The detector's spec.
        geometry: What `preprocess` returned for the image.
        score_threshold: Lowest score, exclusive.
        iou_threshold: IoU above which the lower-scored of two boxes of one class goes.
        limit: Most detections.

    Raises:
        UsageError: A threshold is not 0 to 1.
    """
    return suppress(find_candidates(outputs, spec, geometry, score_threshold), spec, iou_threshold, limit)


def decode_batch(
    outputs: Mapping[str, Floats],
    spec: DetectorSpec,
    geometries: Sequence[Geometry],
    *,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
) -> list[Detections]:
    """Raw outputs `[batch, ...]` to the detections of each image; arguments are those of `decode`."""
    return [
        decode(
            {name: array[number : number + 1] for name, array in outputs.items()},
            spec,
            geometry,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
        )
        for number, geometry in enumerate(geometries)
    ]
