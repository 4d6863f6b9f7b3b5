"""Suppression after decoding: thresholds, limits and order of detections."""

from __future__ import annotations

import numpy as np
import pytest

from edgedet.decode import Candidates, suppress
from edgedet.spec import DetectorSpec, InputSpec, OutputSpec, SsdDecoder, SsdPriors

PRIORS = SsdPriors(feature_maps_hw=((1, 1),), scales=(0.5, 1.0), aspect_ratios=((),))

SPEC = DetectorSpec(
    name="test",
    input=InputSpec(size_hw=(32, 32)),
    outputs=(
        OutputSpec(name="box_offsets", shape=(1, 2, 4), role="box_offsets"),
        OutputSpec(name="class_logits", shape=(1, 2, 3), role="class_logits"),
    ),
    decoder=SsdDecoder(priors=PRIORS),
    labels=("cat", "dog"),
    max_detections=3,
)


def side_by_side(count: int) -> Candidates:
    """Boxes that do not overlap, with rising scores."""
    left = np.arange(count, dtype=np.float32) * 10
    boxes = np.stack([left, np.zeros_like(left), left + 8, np.full_like(left, 8)], axis=1)
    scores = np.linspace(0.1, 0.9, count, dtype=np.float32)
    return Candidates(boxes, scores, np.zeros(count, np.int64), np.arange(count))


def test_the_best_of_an_image_stay_in_descending_order() -> None:
    found = suppress(side_by_side(6), SPEC)
    np.testing.assert_allclose(found.scores, [0.9, 0.74, 0.58], rtol=1e-5)


@pytest.mark.parametrize(("limit", "expected"), [(None, 3), (1, 1), (0, 0), (100, 6)])
def test_the_limit_is_the_specs_unless_given(limit: int | None, expected: int) -> None:
    assert len(suppress(side_by_side(6), SPEC, limit=limit)) == expected


def test_the_iou_threshold_is_the_specs_unless_given() -> None:
    overlapping = Candidates(
        np.array([[0, 0, 10, 10], [0, 0, 10, 6]], np.float32),
        np.array([0.9, 0.8], np.float32),
        np.zeros(2, np.int64),
        np.arange(2),
    )
    assert len(suppress(overlapping, SPEC)) == 1
    assert len(suppress(overlapping, SPEC, iou_threshold=0.7)) == 2


def test_classes_do_not_suppress_each_other() -> None:
    same = np.array([[0, 0, 10, 10], [0, 0, 10, 10]], np.float32)
    found = suppress(Candidates(same, np.array([0.8, 0.9], np.float32), np.array([0, 1]), np.arange(2)), SPEC)
    assert found.class_ids.tolist() == [1, 0]


def test_more_candidates_than_are_looked_at_leave_the_best() -> None:
    found = suppress(side_by_side(10_500), SPEC, limit=20_000)
    assert len(found) == 10_000
    assert found.scores[0] == np.float32(0.9)
