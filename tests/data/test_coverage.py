"""What calibration says of the images that it saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgedet.data.coverage import FEW_IMAGES, Coverage, CoverageCounter
from edgedet.data.dataset import LabelledImage

LABELS = ("cell", "platelet")


def image(*class_ids: int, ignored: int = 0) -> LabelledImage:
    """An image with a box for each class id, the first of which are ignored."""
    ids = np.array(class_ids, np.int64)
    boxes = np.tile(np.array([0, 0, 4, 4], np.float32), (len(ids), 1))
    pixels = np.zeros((8, 8, 3), np.uint8)
    return LabelledImage("a.png", Path("a.png"), pixels, boxes, ids, np.arange(len(ids)) < ignored)


def counted(data_labels: tuple[str, ...], *images: LabelledImage) -> Coverage:
    counter = CoverageCounter(data_labels, LABELS)
    for one in images:
        counter.add(one, np.random.default_rng(counter.coverage().images).uniform(0, 255, (3, 8, 8)))
    return counter.coverage()


def test_boxes_are_counted_by_the_names_of_the_detectors_classes() -> None:
    coverage = counted(("platelet", "dust", "cell"), image(0, 0, 1), image(2, 0, ignored=1), image())
    assert (coverage.images, coverage.boxes) == (3, 3)
    assert list(coverage.classes.items()) == [("cell", 0), ("platelet", 3)]
    assert (coverage.left_out.boxes, coverage.left_out.labels) == (1, ("dust",))
    assert str(coverage) == "3 images, 3 boxes: cell 0, platelet 3; 1 of other classes"


def test_images_without_labels_say_so_and_blame_no_class() -> None:
    coverage = counted((), image())
    assert (coverage.boxes, coverage.unseen) == (None, ())
    assert str(coverage) == "1 image, no labels"


@pytest.mark.parametrize(
    ("images", "classes", "words"),
    [
        (FEW_IMAGES, {"cell": 1, "platelet": 2}, ()),
        (FEW_IMAGES - 1, {"cell": 1, "platelet": 2}, ("15 images: with fewer than 16",)),
        (FEW_IMAGES, {"cell": 1, "platelet": 0}, ("none of these classes: platelet",)),
        (1, {"cell": 0, "platelet": 0}, ("1 image:", "cell, platelet")),
    ],
)
def test_few_images_and_unseen_classes_are_warned_of(
    images: int, classes: dict[str, int], words: tuple[str, ...]
) -> None:
    warnings = Coverage(images=images, boxes=sum(classes.values()), classes=classes).warnings
    assert len(warnings) == len(words)
    assert all(word in warning for word, warning in zip(words, warnings, strict=True))


def shown(*pictures: np.ndarray) -> Coverage:
    """What those pixels show, eight times each, with noise of less than a step."""
    counter = CoverageCounter((), LABELS)
    for number in range(8 * len(pictures)):
        noise = np.random.default_rng(number).normal(0, 0.5, (3, 8, 8))
        counter.add(image(), pictures[number % len(pictures)] + noise)
    return counter.coverage()


def test_images_that_show_nothing_are_counted_and_warned_of() -> None:
    grey, scene = np.full((3, 8, 8), 128.0), np.random.default_rng(0).uniform(0, 255, (3, 8, 8))
    assert (shown(grey).empty, shown(grey).repeated) == (8, 0)
    assert any("8 show one colour" in warning for warning in shown(grey).warnings)
    mixed = shown(grey, scene)
    assert (mixed.empty, mixed.repeated) == (8, 0)
    assert mixed.warnings == ()


def test_copies_of_an_image_are_counted_and_warned_of() -> None:
    counter, scene = CoverageCounter((), LABELS), np.random.default_rng(0).uniform(0, 255, (3, 8, 8))
    for _ in range(FEW_IMAGES):
        counter.add(image(), scene)
    coverage = counter.coverage()
    assert (coverage.empty, coverage.repeated) == (0, FEW_IMAGES - 1)
    assert "15 are copies of others" in coverage.warnings[0]
