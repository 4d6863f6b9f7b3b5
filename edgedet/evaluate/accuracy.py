"""The values that an evaluation gives, and the form in which it keeps what it was given.

Average precisions are fractions 0..1; None where there is no ground truth to measure against.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgedet.boxes import Floats, Ints
from edgedet.data.dataset import LeftOutClasses
from edgedet.detections import Detections
from edgedet.spec import Value


class ClassAccuracy(Value):
    """Average precision of one class.

    Attributes:
        label: Name of the class.
        boxes: Ground-truth boxes that count, ignored ones left out.
        ap: COCO, mean over IoU 0.50:0.95.
        ap50: COCO at IoU 0.5 (101 recall points).
        voc07_ap50: VOC 2007 at IoU 0.5 (11 recall points).
        voc10_ap50: VOC 2010 and later at IoU 0.5 (area under the monotone curve).
    """

    label: str
    boxes: int
    ap: float | None
    ap50: float | None
    voc07_ap50: float | None
    voc10_ap50: float | None


class AccuracyReport(Value):
    """Accuracy of a detector on one data set; `map*` are means over the classes that have ground truth.

    Sizes are COCO's, by the area that the data set states or else that of the box: small up to 32² pixels,
    medium up to 96², large above.

    Attributes:
        left_out: Boxes of the data set whose classes the detector does not know; `boxes` does not hold them.
    """

    schema_version: Literal[1] = 1
    images: int
    boxes: int
    map: float | None
    map50: float | None
    map75: float | None
    map_small: float | None
    map_medium: float | None
    map_large: float | None
    voc07_map50: float | None
    voc10_map50: float | None
    classes: tuple[ClassAccuracy, ...]
    left_out: LeftOutClasses = LeftOutClasses()

    @property
    def left_out_line(self) -> str:
        """What was not measured against, as one sentence for readers, or ""."""
        return self.left_out.beside(self.boxes, len(self.classes))


@dataclass(frozen=True, slots=True, eq=False)
class EvaluatedImage:
    """Ground truth and detections of one image, without its pixels.

    Attributes:
        size_hw: Size of the image.
        boxes_xyxy: Ground truth, float32 `[n, 4]`.
        class_ids: int64 `[n]`.
        ignore: bool `[n]`, neither found nor missed.
        detections: What was detected.
        areas: float64 `[n]`, square pixels of the objects; those of the boxes when None.
    """

    size_hw: tuple[int, int]
    boxes_xyxy: Floats
    class_ids: Ints
    ignore: NDArray[np.bool_]
    detections: Detections
    areas: NDArray[np.float64] | None = None
