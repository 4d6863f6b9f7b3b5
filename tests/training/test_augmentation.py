from __future__ import annotations

import numpy as np
import pytest
import torch

from edgedet.training.augmentation import Augmentation
from edgedet.training.config import AugmentationConfig

BOX = (60, 30, 110, 80)
OFF = {"photometric": 0, "zoom_out": 0, "iou_crop": 0, "horizontal_flip": 0, "vertical_flip": 0}


def image_with_a_blue_rectangle():
    image = np.zeros((120, 160, 3), np.uint8)
    image[BOX[1] : BOX[3], BOX[0] : BOX[2]] = (255, 0, 0)
    return image, np.array([BOX], np.float32), np.array([[7, 0]])


def bounds_of_blue(image):
    ys, xs = np.nonzero((image[..., 0] > 200) & (image[..., 2] < 50))
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@pytest.mark.parametrize("change", ["zoom_out", "iou_crop", "horizontal_flip", "vertical_flip"])
def test_boxes_move_with_their_pixels(change):
    augment = Augmentation(AugmentationConfig(**{**OFF, change: 1}))
    changed = False
    for seed in range(12):
        torch.manual_seed(seed)
        image, boxes, classes = augment(*image_with_a_blue_rectangle())
        changed |= image.shape != (120, 160, 3) or tuple(boxes[0]) != BOX
        if len(boxes):
            np.testing.assert_allclose(boxes[0], bounds_of_blue(image), atol=0.51)
            assert classes.tolist() == [[7, 0]]
    assert changed


def test_colours_change_and_boxes_stay():
    augment = Augmentation(AugmentationConfig(**{**OFF, "photometric": 1}))
    original, box, classes = image_with_a_blue_rectangle()
    original[original == 0] = 90
    image, boxes, _ = augment(original, box, classes)
    assert image.shape == original.shape
    assert np.abs(image.astype(int) - original).max() > 3
    assert tuple(boxes[0]) == BOX


def test_nothing_changes_when_all_is_off():
    original = image_with_a_blue_rectangle()
    for found, expected in zip(Augmentation(AugmentationConfig(**OFF))(*original), original, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_an_image_without_objects_is_augmented():
    augment = Augmentation(AugmentationConfig(iou_crop=1, zoom_out=1))
    image, boxes, classes = augment(
        image_with_a_blue_rectangle()[0], np.zeros((0, 4), np.float32), np.zeros((0, 2), np.int64)
    )
    assert image.dtype == np.uint8
    assert boxes.shape == (0, 4)
    assert classes.shape == (0, 2)
