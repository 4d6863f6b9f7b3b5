"""pycocotools' evaluation with its innermost loops over what can match at all.

`COCOeval.evaluateImg` visits every object for every detection, at ten thresholds and in four ranges of area,
in Python: most of the time of an evaluation. Few of those pairs overlap by the lowest threshold, and what is
below a threshold changes nothing there. The results are those of pycocotools to the bit, which
`tests/evaluate/test_coco_matching.py` holds; all else is its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped]

# pycocotools' own bound of a threshold, so that an IoU of 1 is a match at 1.
_LARGEST_THRESHOLD = 1 - 1e-10


class SparseEvaluation(COCOeval):  # type: ignore[misc]
    """`COCOeval` for boxes; an image's matching takes time by the pairs that overlap."""

    def _prepare(self) -> None:
        """As in pycocotools; detections are sorted once by score, and not for every range of area."""
        super()._prepare()
        for found in self._dts.values():
            found.sort(key=lambda one: -one["score"])

    def evaluateImg(  # noqa: N802
        self,
        imgId: int,  # noqa: N803
        catId: int,  # noqa: N803
        aRng: Sequence[float],  # noqa: N803
        maxDet: int,  # noqa: N803
    ) -> dict[str, Any] | None:
        """As in pycocotools."""
        objects, found = self._gts[imgId, catId], self._dts[imgId, catId]
        if not objects and not found:
            return None
        low, high = aRng
        outside = [bool(one["ignore"]) or not low <= one["area"] <= high for one in objects]
        ignored = np.array(outside, np.int64)
        last = np.argsort(ignored, kind="stable")
        objects, ignored = [objects[i] for i in last], ignored[last]
        found = found[:maxDet]
        thresholds = np.minimum(self.params.iouThrs, _LARGEST_THRESHOLD)
        matches = np.full((len(thresholds), len(found)), -1)
        if objects and found:
            crowds = [bool(one["iscrowd"]) for one in objects]
            overlaps = np.asarray(self.ious[imgId, catId])[:, last]
            matches = match_by_threshold(overlaps, ignored, crowds, thresholds)
        return self._result((imgId, catId, aRng, maxDet), objects, found, ignored, matches)

    @staticmethod
    def _result(
        asked: tuple[int, int, Sequence[float], int],
        objects: Sequence[Mapping[str, Any]],
        found: Sequence[Mapping[str, Any]],
        ignored: NDArray[np.int64],
        matches: NDArray[np.int64],
    ) -> dict[str, Any]:
        """What `accumulate` reads, under the keys of pycocotools."""
        image_id, category_id, area_range, most = asked
        low, high = area_range
        is_matched = matches >= 0
        object_ids = np.array([*(one["id"] for one in objects), 0], np.float64)
        found_ids = np.array([one["id"] for one in found], np.float64)
        object_matches = np.zeros((len(matches), len(objects)))
        rows, columns = np.nonzero(is_matched)
        object_matches[rows, matches[rows, columns]] = found_ids[columns]
        outside = np.array([not low <= one["area"] <= high for one in found], bool)
        counts_not = np.array([*ignored, 0], bool)[matches] | (~is_matched & outside)
        return {
            "image_id": image_id,
            "category_id": category_id,
            "aRng": area_range,
            "maxDet": most,
            "dtIds": [one["id"] for one in found],
            "gtIds": [one["id"] for one in objects],
            "dtMatches": object_ids[matches],
            "gtMatches": object_matches,
            "dtScores": [one["score"] for one in found],
            "gtIgnore": ignored,
            "dtIgnore": counts_not,
        }


def match_by_threshold(
    overlaps: NDArray[np.float64],
    ignored: NDArray[np.int64],
    crowds: Sequence[bool],
    thresholds: NDArray[np.float64],
) -> NDArray[np.int64]:
    """The object of each detection at each threshold, greedily by descending score.

    A detection takes the object that it overlaps most, the last of equal ones, among those not yet taken; one
    that is ignored only where no other is left. A crowd is never taken up.

    Args:
        overlaps: IoU `[detections, objects]`, detections by descending score, ignored objects last.
        ignored: 1 for objects that count neither way, `[objects]`.
        crowds: Whether each is a crowd.
        thresholds: Ascending.

    Returns:
        Indices of objects, `[thresholds, detections]`; -1 without one.
    """
    matches = np.full((len(thresholds), len(overlaps)), -1)
    rows, columns = np.nonzero(overlaps >= thresholds[0])
    values = overlaps[rows, columns]
    # By detection, objects that count first, then by overlap, then the last first.
    order = np.lexsort((-columns, -values, ignored[columns], rows))
    pairs = list(zip(rows[order].tolist(), columns[order].tolist(), values[order].tolist(), strict=True))
    for level, threshold in enumerate(thresholds.tolist()):
        taken: set[int] = set()
        done = -1
        for detection, thing, overlap in pairs:
            if detection == done or overlap < threshold or thing in taken:
                continue
            done = detection
            matches[level, detection] = thing
            if not crowds[thing]:
                taken.add(thing)
    return matches
