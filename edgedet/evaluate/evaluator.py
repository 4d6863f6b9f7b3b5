"""Ground truth and detections in, one accuracy report out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgedet.boxes import Ints
from edgedet.data.dataset import Dataset, LabelledImage, LeftOutClasses, nothing_to
from edgedet.detections import Detections
from edgedet.errors import DataError
from edgedet.evaluate.accuracy import AccuracyReport, ClassAccuracy, EvaluatedImage
from edgedet.evaluate.coco import MAX_DETECTIONS, coco_precision
from edgedet.evaluate.voc import voc_curve
from edgedet.pipeline import Pipeline
from edgedet.progress import Track, silent
from edgedet.spec import DetectorSpec

# Average precision sums over the whole curve, so that all but hopeless detections are wanted.
EVALUATION_SCORE_THRESHOLD = 0.01


class Evaluator:
    """Collects images one at a time; pixels are not kept.

    Args:
        labels: Names of the classes, by class id, of ground truth and detections alike.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self._images: list[EvaluatedImage] = []
        self._left_out: Counter[str] = Counter()

    def add(self, image: LabelledImage, detections: Detections) -> None:
        """Take one image and its detections, which should reach down to `EVALUATION_SCORE_THRESHOLD`."""
        size_hw = (image.image_bgr.shape[0], image.image_bgr.shape[1])
        self._images.append(
            EvaluatedImage(size_hw, image.boxes_xyxy, image.class_ids, image.ignore, detections, image.areas)
        )

    def add_left_out(self, image: LabelledImage, data_labels: Sequence[str]) -> None:
        """Count the boxes of an image whose classes are none of the labels, for the report.

        Args:
            image: With the class ids of the data set, as it was before `with_detector_classes`.
            data_labels: Those of the data set.
        """
        names = [data_labels[class_id] for class_id in image.class_ids[~image.ignore]]
        self._left_out.update(name for name in names if name not in self._labels)

    def report(self) -> AccuracyReport:
        """Average precision of all that was added.

        Raises:
            MissingExtraError: faster-coco-eval is not installed.
        """
        coco = coco_precision(self._images, self._labels)
        curves = [voc_curve(self._images, class_id) for class_id in range(len(self._labels))]
        classes = tuple(
            ClassAccuracy(
                label=label,
                boxes=curve.positives,
                ap=coco.map(class_id),
                ap50=coco.map50(class_id),
                voc07_ap50=curve.voc07_ap(),
                voc10_ap50=curve.voc10_ap(),
            )
            for class_id, (label, curve) in enumerate(zip(self._labels, curves, strict=True))
        )
        small, medium, large = coco.map_by_size()
        return AccuracyReport(
            images=len(self._images),
            boxes=sum(one.boxes for one in classes),
            map=coco.map(),
            map50=coco.map50(),
            map75=coco.map75(),
            map_small=small,
            map_medium=medium,
            map_large=large,
            voc07_map50=_mean([one.voc07_ap50 for one in classes]),
            voc10_map50=_mean([one.voc10_ap50 for one in classes]),
            classes=classes,
            left_out=LeftOutClasses.of(self._left_out),
        )


def evaluate(pipeline: Pipeline, dataset: Dataset, track: Track = silent) -> AccuracyReport:
    """Run a detector over a data set and measure it; classes are joined by their names.

    Raises:
        DataError: Data set and detector have no class in common, or no image can be read.
        MissingExtraError: faster-coco-eval is not installed.
    """
    detector = Pipeline(pipeline.runtime, evaluation_spec(pipeline.spec))
    mapping = shared_classes(dataset.labels, detector.labels)
    evaluator = Evaluator(detector.labels)
    for image in track(dataset, "Evaluating", len(dataset)):
        evaluator.add_left_out(image, dataset.labels)
        evaluator.add(with_detector_classes(image, mapping), detector(image.image_bgr))
    report = evaluator.report()
    if not report.images:
        raise nothing_to("evaluate on", dataset)
    return report


def evaluation_spec(spec: DetectorSpec) -> DetectorSpec:
    """The spec with the threshold and the number of detections that average precision is measured with."""
    return spec.model_copy(
        update={"score_threshold": EVALUATION_SCORE_THRESHOLD, "max_detections": MAX_DETECTIONS}
    )


def shared_classes(data_labels: Sequence[str], detector_labels: Sequence[str]) -> Ints:
    """The detector's class id for each class id of the data, `[len(data_labels)]`; -1 where it has none.

    Raises:
        DataError: There are labels, and none is shared.
    """
    ids = {label: class_id for class_id, label in enumerate(detector_labels)}
    mapping = np.array([ids.get(label, -1) for label in data_labels], np.int64)
    if len(mapping) and (mapping < 0).all():
        raise DataError(
            "the detector knows none of the classes of this data set",
            got=", ".join(data_labels[:20]),
            expected="some of " + ", ".join(detector_labels[:20]),
            fix="choose the data that the detector was trained for, or name its classes alike",
        )
    return mapping


def with_detector_classes(image: LabelledImage, mapping: Ints) -> LabelledImage:
    """The image with the detector's class ids, and without boxes of classes that it does not know."""
    class_ids = mapping[image.class_ids]
    known = class_ids >= 0
    return replace(
        image,
        boxes_xyxy=image.boxes_xyxy[known],
        class_ids=class_ids[known],
        ignore=image.ignore[known],
        areas=None if image.areas is None else image.areas[known],
    )


def _mean(values: Sequence[float | None]) -> float | None:
    counted = [value for value in values if value is not None]
    return sum(counted) / len(counted) if counted else None
