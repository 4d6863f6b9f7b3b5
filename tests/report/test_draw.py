"""Pictures: boxes and plates where they belong, whatever the image and the names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedet.data.dataset import LabelledImage
from edgedet.detections import Detections
from edgedet.errors import DataError
from edgedet.report import comparison_pictures, draw_comparison, draw_detections
from edgedet.report.draw import GAINED, LOST, class_colour
from edgedet.report.pictures import looks_different


def detections(*boxes: tuple[float, ...]) -> Detections:
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.full(count, 0.5, np.float32), np.zeros(count, np.int64)
    )


def test_a_box_is_drawn_on_its_edge_and_not_inside():
    image = np.zeros((200, 200, 3), np.uint8)
    drawn = draw_detections(image, detections((50, 80, 150, 180)), ["cell"])
    assert tuple(drawn[130, 50]) == tuple(drawn[130, 149]) == tuple(drawn[179, 100]) == class_colour(0)
    assert not drawn[100:170, 60:140].any()
    assert drawn[60:80, 50:90].any(), "the plate is above the box"
    assert not image.any(), "the image that was given is not changed"


def test_without_detections_the_image_is_as_it_was():
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    drawn = draw_detections(image, Detections.empty(), ["cell"])
    assert (drawn == image).all()
    assert drawn is not image


@given(st.text(max_size=80), st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_any_label_on_any_image_can_be_drawn(label: str, height: int, width: int, seed: int):
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.uint8)
    boxes = np.sort(rng.uniform(-10, 70, (3, 2, 2)), axis=1).reshape(3, 4)
    drawn = draw_detections(image, detections(*boxes.tolist()), [label])
    assert drawn.shape == image.shape


def test_neighbouring_classes_have_colours_that_can_be_told_apart():
    colours = np.array([class_colour(class_id) for class_id in range(80)], float)
    assert np.abs(np.diff(colours, axis=0)).sum(axis=1).min() > 150
    assert len({tuple(colour) for colour in colours}) == 80


def test_a_comparison_shows_lost_in_red_and_gained_in_yellow(parity):
    worst = parity.rows[1].worst_images[0]
    moved = tuple(
        thing.model_copy(update={name: (60.0 * index + 5, 60.0, 60.0 * index + 50, 110.0)})
        for index, thing in enumerate(worst.objects)
        for name in ("box_xyxy" if thing.box_xyxy else "reference_box_xyxy",)
    )
    image = np.zeros((200, 300, 3), np.uint8)
    drawn = draw_comparison(image, worst.model_copy(update={"objects": moved}), ["cell"])
    assert [thing.outcome for thing in moved[:2]] == ["lost", "gained"]
    assert tuple(drawn[90, 5]) == LOST
    assert tuple(drawn[90, 65]) == GAINED


def test_plates_of_boxes_in_one_place_do_not_hide_each_other():
    boxes = np.array([[60, 60, 160, 140], [62, 61, 158, 139], [61, 62, 159, 138]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.arange(3))
    drawn = draw_detections(np.zeros((200, 260, 3), np.uint8), found, ["aaaaaaa", "bbbbbbb", "ccccccc"])
    areas = [(drawn == class_colour(class_id)).all(axis=2).sum() for class_id in range(3)]
    assert min(areas) > 0.7 * max(areas)


class Photos:
    """A data set of one image, which may be broken."""

    labels, image_ids = ("cell",), ["photo 1.jpg"]

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken

    def __getitem__(self, index: int) -> LabelledImage:
        if self.broken:
            raise DataError("cannot read photo 1.jpg")
        nothing = np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, bool)
        return LabelledImage("photo 1.jpg", Path("x"), np.full((60, 80, 3), 90, np.uint8), *nothing)


def test_pictures_are_of_the_rows_that_differ_first(parity):
    pictures = comparison_pictures(parity, Photos())
    assert [picture.title for picture in pictures] == ["ort int8", "ort fp32"]
    assert "1 the same, 1 lost, 1 gained, 1 at the threshold" in pictures[0].caption
    decoded = cv2.imdecode(np.frombuffer(pictures[0].jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape[:2] == pictures[0].size_hw == (360, 480)


def test_artifacts_that_look_alike_have_one_picture_and_only_where_none_differs(parity):
    (worst,) = parity.rows[0].worst_images
    matched = tuple(thing for thing in worst.objects if thing.outcome == "matched")
    alike = worst.model_copy(
        update={"objects": matched, "lost": 0, "gained": 0, "max_score_delta": 0.001, "max_box_px": 0.1}
    )
    row = parity.rows[0].model_copy(update={"worst_images": (alike,)})
    assert not looks_different(row)
    assert len(comparison_pictures(parity.model_copy(update={"rows": (row, row)}), Photos())) == 1
    (picture,) = comparison_pictures(parity.model_copy(update={"rows": (row, parity.rows[1])}), Photos())
    assert picture.title == f"{parity.rows[1].runtime} {parity.rows[1].precision}"
    for change in ({"max_score_delta": 0.02}, {"max_box_px": 1.5}):
        shifted = row.model_copy(update={"worst_images": (alike.model_copy(update=change),)})
        assert looks_different(shifted)


@pytest.mark.parametrize("gone", [True, False])
def test_an_image_that_is_gone_is_left_out(parity, gone: bool):
    photos = Photos(broken=not gone)
    if gone:
        photos.image_ids = []
    assert comparison_pictures(parity, photos) == ()


def test_three_pictures_of_each_artifact_fit_in_a_page_that_can_be_mailed(parity):
    class Noise(Photos):
        """An image that no codec makes small."""

        def __getitem__(self, index: int) -> LabelledImage:
            image = super().__getitem__(index)
            pixels = np.random.default_rng(0).integers(0, 255, (900, 1200, 3), np.uint8)
            return replace(image, image_bgr=pixels)

    worst = parity.rows[1].worst_images[0]
    row = parity.rows[1].model_copy(update={"worst_images": (worst, worst, worst)})
    pictures = comparison_pictures(parity.model_copy(update={"rows": (row,) * 6}), Noise())
    assert len(pictures) == 18
    assert max(len(picture.jpeg) for picture in pictures) <= 64_000
    assert all(picture.size_hw[1] > 200 for picture in pictures)
    assert len(comparison_pictures(parity.model_copy(update={"rows": (row,) * 12}), Noise())) == 12
