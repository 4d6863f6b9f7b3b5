"""VOC average precision against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgedet.detections import Detections
from edgedet.evaluate.accuracy import EvaluatedImage
from edgedet.evaluate.voc import voc_curve

A, B, C, FAR = [0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50], [90, 90, 99, 99]


def image(truth, found, ignore=()) -> EvaluatedImage:
    """Ground truth boxes and (box, score) detections, all of class 0."""
    boxes = np.array(truth, np.float32).reshape(-1, 4)
    mask = np.isin(np.arange(len(boxes)), ignore)
    detections = Detections(
        np.array([box for box, _ in found], np.float32).reshape(-1, 4),
        np.array([score for _, score in found], np.float32),
        np.zeros(len(found), np.int64),
    )
    return EvaluatedImage((100, 100), boxes, np.zeros(len(boxes), np.int64), mask, detections)


def test_right_wrong_right_over_two_objects():
    # Precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1: six points reach 1, five reach 2/3.
    curve = voc_curve([image([A, B], [(A, 0.9), (FAR, 0.8), (B, 0.7)])], 0)
    assert curve.voc07_ap() == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    assert curve.voc10_ap() == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_a_recall_of_three_tenths_reaches_the_point_three_tenths():
    truth = [[20 * index, 0, 20 * index + 10, 10] for index in range(10)]
    curve = voc_curve([image(truth, [(box, 0.9) for box in truth[:3]])], 0)
    assert curve.voc07_ap() == pytest.approx(4 / 11)
    assert curve.voc10_ap() == pytest.approx(0.3)


def test_the_second_detection_of_an_object_is_wrong():
    curve = voc_curve([image([A], [(A, 0.9), (A, 0.8)])], 0)
    assert (curve.true_positives[-1], curve.false_positives[-1]) == (1, 1)


def test_a_detection_of_a_difficult_object_is_not_counted():
    curve = voc_curve([image([A, B], [(B, 0.9), (B, 0.8), (A, 0.7)], ignore=[1])], 0)
    assert (curve.positives, curve.true_positives[-1], curve.false_positives[-1]) == (1, 1, 0)
    assert curve.voc07_ap() == curve.voc10_ap() == 1


def test_an_overlap_of_exactly_one_half_is_a_match():
    half = [0, 0, 5, 10]
    assert voc_curve([image([A], [(half, 0.9)])], 0).voc10_ap() == 1
    assert voc_curve([image([A], [([0, 0, 4.9, 10], 0.9)])], 0).voc10_ap() == 0


def test_scores_are_ranked_over_all_images():
    images = [image([A], [(FAR, 0.5), (A, 0.4)]), image([B], [(B, 0.9)])]
    curve = voc_curve(images, 0)
    assert curve.true_positives.tolist() == [1, 1, 2]
    assert curve.voc10_ap() == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_without_objects_there_is_no_precision_and_without_detections_it_is_zero():
    assert voc_curve([image([], [(A, 0.9)])], 0).voc07_ap() is None
    assert voc_curve([image([A], [], ignore=[0])], 0).voc10_ap() is None
    assert voc_curve([image([A], [])], 0).voc07_ap() == 0
    assert voc_curve([image([A], [])], 0).voc10_ap() == 0
    assert voc_curve([], 0).voc10_ap() is None


def test_other_classes_are_left_alone():
    assert voc_curve([image([A], [(A, 0.9)])], 1).positives == 0
