"""The objects found in one image, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgedet.boxes import Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Boxes, scores and classes of one image, by descending score.

    Attributes:
        boxes_xyxy: float32 `[n, 4]`, pixels of the original image (`edgedet.boxes` states the convention).
        scores: float32 `[n]`, 0..1.
        class_ids: int64 `[n]`, indices into the detector's labels.
    """

    boxes_xyxy: Floats
    scores: Floats
    class_ids: Ints

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.boxes_xyxy.shape != (n, 4) or self.scores.shape != (n,) or self.class_ids.shape != (n,):
            raise ValueError(
                f"boxes [n, 4], scores [n], class_ids [n] must agree; got {self.boxes_xyxy.shape}, "
                f"{self.scores.shape}, {self.class_ids.shape}"
            )

    @staticmethod
    def empty() -> Detections:
        """No objects."""
        return Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Ints | np.ndarray | slice) -> Detections:
        return Detections(self.boxes_xyxy[index], self.scores[index], self.class_ids[index])

    def above(self, score_threshold: float) -> Detections:
        """Those with a score above the threshold."""
        return self[self.scores > score_threshold]

    def to_records(self, labels: Sequence[str]) -> list[dict[str, object]]:
        """One plain mapping an object, for JSON: label, class_id, score, box_xyxy."""
        return [
            {
                "label": labels[class_id],
                "class_id": int(class_id),
                "score": round(float(score), 6),
                "box_xyxy": [round(float(x), 3) for x in box],
            }
            for box, score, class_id in zip(self.boxes_xyxy, self.scores, self.class_ids, strict=True)
        ]
