"""COCO average precision, by pycocotools.

The numbers are those of writing ground truth and detections as COCO json and evaluating the files; for ground
truth that came from a COCO json, those of evaluating that json. Ignored objects are crowds to pycocotools: a
detection inside one is not counted.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedet.evaluate.accuracy import EvaluatedImage
from edgedet.registry import missing_extra

MAX_DETECTIONS = 100

_ALL, _SMALL, _MEDIUM, _LARGE = range(4)  # order of pycocotools' area ranges
_IOU_50, _IOU_75 = 0, 5  # indices into its thresholds 0.50, 0.55, ... 0.95


@dataclass(frozen=True, slots=True, eq=False)
class CocoPrecision:
    """What pycocotools accumulated.

    Attributes:
        precision: By IoU threshold, recall point, class and area range, `[10, 101, classes, 4]`; -1 where
            there is no ground truth.
    """

    precision: NDArray[np.float64]

    def map(self, class_id: int | None = None) -> float | None:
        """Mean over IoU 0.50:0.95, of one class or of all."""
        return _mean(self._of(class_id)[..., _ALL])

    def map50(self, class_id: int | None = None) -> float | None:
        """At IoU 0.5, of one class or of all."""
        return _mean(self._of(class_id)[_IOU_50, ..., _ALL])

    def map75(self) -> float | None:
        """At IoU 0.75."""
        return _mean(self.precision[_IOU_75, ..., _ALL])

    def map_by_size(self) -> tuple[float | None, float | None, float | None]:
        """Small, medium and large objects."""
        small, medium, large = (_mean(self.precision[..., index]) for index in (_SMALL, _MEDIUM, _LARGE))
        return small, medium, large

    def _of(self, class_id: int | None) -> NDArray[np.float64]:
        return self.precision if class_id is None else self.precision[:, :, class_id]


def coco_precision(images: Sequence[EvaluatedImage], labels: Sequence[str]) -> CocoPrecision:
    """Evaluate with pycocotools, which prints nothing here and is not needed where there is no ground truth.

    Raises:
        MissingExtraError: pycocotools is not installed.
    """
    if not any(len(image.boxes_xyxy) for image in images):
        return CocoPrecision(np.full((10, 101, len(labels), 4), -1.0))
    try:
        from pycocotools.coco import COCO  # type: ignore[import-untyped]

        from edgedet.evaluate.coco_matching import SparseEvaluation
    except ModuleNotFoundError as exc:
        raise missing_extra("mean average precision", exc, "evaluate") from exc
    with redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        truth.dataset = _document(images, labels, _truth_annotations(images))
        found.dataset = _document(images, labels, _detection_annotations(images))
        truth.createIndex()
        found.createIndex()
        evaluation = SparseEvaluation(truth, found, "bbox")
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
    return CocoPrecision(evaluation.eval["precision"][..., -1])


def _mean(precision: NDArray[np.float64]) -> float | None:
    counted = precision[precision > -1]
    return float(counted.mean()) if counted.size else None


def _document(
    images: Sequence[EvaluatedImage], labels: Sequence[str], annotations: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "images": [
            {"id": index, "height": image.size_hw[0], "width": image.size_hw[1]}
            for index, image in enumerate(images, 1)
        ],
        "categories": [{"id": index, "name": label} for index, label in enumerate(labels, 1)],
        "annotations": annotations,
    }


def _truth_annotations(images: Sequence[EvaluatedImage]) -> list[dict[str, Any]]:
    annotations: list[dict[str, Any]] = []
    for image_id, image in enumerate(images, 1):
        first = len(annotations)
        columns = (image.boxes_xyxy.tolist(), image.class_ids.tolist(), image.ignore.tolist())
        for box, class_id, ignore in zip(*columns, strict=True):
            annotations.append(_annotation(len(annotations) + 1, image_id, box, class_id))
            annotations[-1]["iscrowd"] = int(ignore)
        if image.areas is not None:
            for annotation, area in zip(annotations[first:], image.areas, strict=True):
                annotation["area"] = float(area)
    return annotations


def _detection_annotations(images: Sequence[EvaluatedImage]) -> list[dict[str, Any]]:
    annotations: list[dict[str, Any]] = []
    for image_id, image in enumerate(images, 1):
        found = image.detections
        columns = (found.boxes_xyxy.tolist(), found.class_ids.tolist(), found.scores.tolist())
        for box, class_id, score in zip(*columns, strict=True):
            annotations.append(_annotation(len(annotations) + 1, image_id, box, class_id))
            annotations[-1]["score"] = score
    return annotations


def _annotation(number: int, image_id: int, box_xyxy: Sequence[float], class_id: int) -> dict[str, Any]:
    """Ids start at 1: pycocotools takes a match with annotation 0 for no match."""
    x1, y1, x2, y2 = box_xyxy
    width, height = x2 - x1, y2 - y1
    return {
        "id": number,
        "image_id": image_id,
        "category_id": class_id + 1,
        "bbox": [x1, y1, width, height],
        "area": width * height,
    }
