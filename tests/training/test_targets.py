from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgedet.boxes import cxcywh_to_xyxy, iou
from edgedet.decode.ssd import decode_offsets, priors_cxcywh
from edgedet.models.detector import Detector
from edgedet.models.zoo import zoo_config
from edgedet.training.targets import IGNORED, TargetEncoder, match

CONFIG = zoo_config("ssdlite320_mobilenetv2", ("a", "b"))
SPEC = Detector(CONFIG, nn.Identity(), nn.Identity()).spec()
PRIORS = priors_cxcywh(CONFIG.priors, CONFIG.input.size_hw)

corner, side = st.floats(0, 280, width=32), st.floats(2, 300, width=32)
box = st.tuples(corner, corner, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
boxes = st.lists(box, min_size=1, max_size=12).map(lambda rows: np.array(rows, np.float32))


@settings(max_examples=30, deadline=None)
@given(boxes)
def test_every_ground_truth_has_a_prior_and_decodes_to_itself(boxes_xyxy):
    class_ids = np.arange(len(boxes_xyxy)) % 2
    offsets, labels = TargetEncoder(SPEC)(boxes_xyxy, class_ids, np.zeros(len(boxes_xyxy), bool))
    positive = labels > 0
    decoded = decode_offsets(offsets[positive], PRIORS[positive], (0.1, 0.2))
    matched = match(iou(boxes_xyxy, cxcywh_to_xyxy(PRIORS)))[positive]
    assert set(matched) == set(range(len(boxes_xyxy)))
    np.testing.assert_allclose(decoded, boxes_xyxy[matched], atol=0.02)
    np.testing.assert_array_equal(labels[positive], class_ids[matched] + 1)
    assert not offsets[~positive].any()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(8, 40))
def test_priors_above_half_take_their_best_ground_truth(seed, count, priors):
    ious = np.random.default_rng(seed).random((count, priors)).astype(np.float32)
    matched = match(ious)
    best = ious.argmax(axis=0)
    for prior in range(priors):
        if matched[prior] < 0:
            assert ious[:, prior].max() <= 0.5
        elif matched[prior] != best[prior]:
            # only a ground truth that was forced onto this prior overrides its best one
            taken = ious[matched[prior]].argsort()[::-1][:count]
            assert prior in taken


def test_the_most_overlapping_ground_truth_gets_a_contested_prior():
    matched = match(np.array([[0.4, 0.3, 0.0], [0.45, 0.1, 0.0]], np.float32))
    assert matched.tolist() == [1, 0, -1]


def test_an_image_without_objects_is_all_background():
    offsets, labels = TargetEncoder(SPEC)(
        np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
    )
    assert not labels.any()
    assert not offsets.any()


def test_ignored_objects_are_neither_positive_nor_negative():
    boxes_xyxy = np.array([[0, 0, 160, 160], [180, 180, 300, 300]], np.float32)
    _, labels = TargetEncoder(SPEC)(boxes_xyxy, np.array([0, 1]), np.array([True, False]))
    overlaps = iou(boxes_xyxy[:1], cxcywh_to_xyxy(PRIORS))[0]
    assert (labels[overlaps > 0.5] == IGNORED).all()
    assert (labels == IGNORED).sum() == (overlaps > 0.5).sum() > 0
    assert set(labels[labels > 0]) == {2}
