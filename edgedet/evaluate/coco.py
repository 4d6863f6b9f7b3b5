"""COCO average precision, by faster-coco-eval: pycocotools' evaluation in C++.

The numbers are those of writing ground truth and detections as COCO json and evaluating the files with
pycocotools, but for the last bit; for ground truth that came from a COCO json, those of evaluating that
json. Ignored objects are crowds there: a detection inside one is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedet.detections import Detections
from edgedet.evaluate.accuracy import EvaluatedImage
from edgedet.registry import missing_extra

MAX_DETECTIONS = 100

_ALL, _SMALL, _MEDIUM, _LARGE = range(4)  # order of COCO's area ranges
_IOU_50, _IOU_75 = 0, 5  # indices into COCO's thresholds 0.50, 0.55, ... 0.95


@dataclass(frozen=True, slots=True, eq=False)
class CocoPrecision:
    """What was accumulated.

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
    """Evaluate with faster-coco-eval, which is not needed where there is no ground truth.

    Args:
        images: With finite boxes and scores, as decoding makes them.
        labels: Names of the classes, by class id.

    Raises:
        MissingExtraError: faster-coco-eval is not installed.
    """
    if not any(len(image.boxes_xyxy) for image in images):
        return CocoPrecision(np.full((10, 101, len(labels), 4), -1.0))
    try:
        from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-untyped]
    except ModuleNotFoundError as exc:
        raise missing_extra("mean average precision", exc, "evaluate") from exc
    truth, found = COCO(), COCO()
    truth.dataset = _document(images, labels, _truth_annotations(images))
    found.dataset = _document(images, labels, _detection_annotations(images))
    truth.createIndex()
    found.createIndex()
    evaluation = COCOeval_faster(truth, found, "bbox")
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    return CocoPrecision(np.asarray(evaluation.eval["precision"])[..., -1])


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
    annotations = _annotations(images, images)
    ignored = np.concatenate([image.ignore for image in images])
    for annotation, ignore in zip(annotations, ignored.astype(int).tolist(), strict=True):
        annotation["iscrowd"] = ignore
    first = 0
    for image in images:
        last = first + len(image.boxes_xyxy)
        if image.areas is not None:
            for annotation, area in zip(annotations[first:last], image.areas, strict=True):
                annotation["area"] = float(area)
        first = last
    return annotations


def _detection_annotations(images: Sequence[EvaluatedImage]) -> list[dict[str, Any]]:
    found = [image.detections for image in images]
    annotations = _annotations(images, found)
    scores = np.concatenate([one.scores for one in found])
    for annotation, score in zip(annotations, scores.tolist(), strict=True):
        annotation["score"] = score
    return annotations


def _annotations(
    images: Sequence[EvaluatedImage], boxes: Sequence[EvaluatedImage | Detections]
) -> list[dict[str, Any]]:
    """Boxes of all images in their order; ids start at 1, since evaluation takes 0 for no match."""
    counts = [len(one.boxes_xyxy) for one in boxes]
    image_ids = np.repeat(np.arange(1, len(images) + 1), counts)
    category_ids = np.concatenate([one.class_ids for one in boxes]) + 1
    corners = np.concatenate([one.boxes_xyxy for one in boxes]).astype(np.float64)
    sizes = corners[:, 2:] - corners[:, :2]
    columns = (image_ids, category_ids, np.hstack([corners[:, :2], sizes]), sizes.prod(axis=1))
    return [
        {"id": number, "image_id": image_id, "category_id": category_id, "bbox": box, "area": area}
        for number, (image_id, category_id, box, area) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), 1
        )
    ]
