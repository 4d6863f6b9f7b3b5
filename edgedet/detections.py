"""The objects found in one image, as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np

from edgedet.boxes import Floats, Ints


class Detection(NamedTuple):
    """One object.

    Attributes:
        box_xyxy: float32 `[4]`, pixels of the original image.
        score: 0..1.
        class_id: Index into the detector's labels.
        label: Name of the class; "" where the detections have no labels.
    """

    box_xyxy: Floats
    score: float
    class_id: int
    label: str


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Boxes, scores and classes of one image, by descending score.

    Iteration gives each object as a `Detection`, and so does a whole number as an index; a slice or an array
    of indices or truth values gives the detections that it selects.

    Attributes:
        boxes_xyxy: float32 `[n, 4]`, pixels of the original image (`edgedet.boxes` states the convention).
        scores: float32 `[n]`, 0..1.
        class_ids: int64 `[n]`, indices into the detector's labels.
        labels: Names of the classes, where they are known.
    """

    boxes_xyxy: Floats
    scores: Floats
    class_ids: Ints
    labels: Sequence[str] = ()

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

    def __iter__(self) -> Iterator[Detection]:
        return (self[place] for place in range(len(self)))

    @overload
    def __getitem__(self, index: int | np.integer) -> Detection: ...

    @overload
    def __getitem__(self, index: Ints | np.ndarray | slice | list[int] | list[bool]) -> Detections: ...

    def __getitem__(
        self, index: int | np.integer | Ints | np.ndarray | slice | list[int] | list[bool]
    ) -> Detection | Detections:
        if not isinstance(index, int | np.integer) or isinstance(index, bool):
            boxes, scores, class_ids = self.boxes_xyxy[index], self.scores[index], self.class_ids[index]
            return Detections(boxes, scores, class_ids, self.labels)
        class_id = int(self.class_ids[index])
        label = self.labels[class_id] if self.labels else ""
        return Detection(self.boxes_xyxy[index], float(self.scores[index]), class_id, label)

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
