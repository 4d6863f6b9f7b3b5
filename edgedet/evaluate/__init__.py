"""How well a detector detects: COCO and VOC average precision against ground truth.

`accuracy` holds the values, `coco` and `voc` one definition of average precision each, and `evaluator` joins
them.
"""

from edgedet.evaluate.accuracy import AccuracyReport, ClassAccuracy
from edgedet.evaluate.coco import MAX_DETECTIONS
from edgedet.evaluate.evaluator import (
    EVALUATION_SCORE_THRESHOLD,
    Evaluator,
    evaluate,
    evaluation_spec,
    shared_classes,
    with_detector_classes,
)

__all__ = [
    "EVALUATION_SCORE_THRESHOLD",
    "MAX_DETECTIONS",
    "AccuracyReport",
    "ClassAccuracy",
    "Evaluator",
    "evaluate",
    "evaluation_spec",
    "shared_classes",
    "with_detector_classes",
]
