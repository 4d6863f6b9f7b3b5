"""COCO json, real and broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedet.data import open_dataset
from edgedet.errors import DataError

Write = Callable[..., Path]


@pytest.fixture
def document() -> dict[str, Any]:
    """Two images; categories with a hole in their ids."""
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 60, "width": 80},
            {"id": 9, "file_name": "b.png", "height": 60, "width": 80},
        ],
        "annotations": [
            {"image_id": 7, "category_id": 20, "bbox": [1, 2, 30, 40], "iscrowd": 0},
            {"image_id": 7, "category_id": 3, "bbox": [10, 10, 5, 5.5], "iscrowd": 1},
        ],
        "categories": [{"id": 20, "name": "dog"}, {"id": 3, "name": "cat"}],
    }


@pytest.fixture
def write(tmp_path: Path, put_image: Callable[..., Path]) -> Write:
    """Writes the json at a path of the root and the images in a folder of it."""

    def put(document: object, file: str = "instances.json", images: str = ".") -> Path:
        for name in ("a", "b"):
            put_image(tmp_path / images / f"{name}.png")
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    return put


def test_boxes_and_classes_are_read(write: Write, document: dict[str, Any]) -> None:
    dataset = open_dataset(write(document))
    assert dataset.format == "coco"
    assert dataset.labels == ("cat", "dog")  # by category id, without its holes
    first, second = dataset
    np.testing.assert_array_equal(first.boxes_xyxy, [[1, 2, 31, 42], [10, 10, 15, 15.5]])
    assert first.class_ids.tolist() == [1, 0]
    assert first.ignore.tolist() == [False, True]
    assert second.boxes_xyxy.shape == (0, 4)
    assert str(dataset.summary) == "2 images, 2 boxes"


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("instances.json", "."),
        ("instances.json", "images"),
        ("instances.json", "images/train 2017"),
        ("annotations/instances_x.json", "images"),
        ("annotations/instances_x.json", "images/ü"),
        ("annotations/instances_x.json", "x"),
        ("annotations/instances_x.json", "annotations"),
    ],
)
def test_the_folder_of_the_images_is_found(
    write: Write, document, tmp_path: Path, file: str, images: str
) -> None:
    dataset = open_dataset(write(document, file, images))
    assert [item.path.name for item in dataset] == ["a.png", "b.png"]
    assert [item.path for item in dataset] == [dataset.root / image_id for image_id in dataset.image_ids]


def test_a_split_picks_the_json_of_a_folder(write: Write, document, tmp_path: Path) -> None:
    write(document, "annotations/instances_train.json", "images")
    document["images"].pop()
    write(document, "annotations/instances_val.json", "images")
    write(document, "annotations/panoptic_val.json", "images")
    assert len(open_dataset(tmp_path, "train")) == 2
    assert len(open_dataset(tmp_path, "val")) == 1
    joined = open_dataset(tmp_path, "train+val")
    assert list(joined.image_ids) == ["images/a.png", "images/b.png"]
    assert joined.summary.boxes == 2
    assert joined.summary.corrections == {"image that is listed twice": 1, "box that is listed twice": 2}
    with pytest.raises(DataError, match="more than one COCO json"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match="no COCO json for split test"):
        open_dataset(tmp_path, "test")


def test_a_json_itself_has_no_splits(write: Write, document) -> None:
    with pytest.raises(DataError, match="has no splits"):
        open_dataset(write(document), "train")


def test_labels_are_imposed_by_name(write: Write, document) -> None:
    dataset = open_dataset(write(document), labels=["dog", "horse"])
    assert [item.class_ids.tolist() for item in dataset] == [[0], []]
    assert dataset.summary.problems == {"box of an unknown class": 1}
    assert not +dataset.summary.unknown_classes, "the only box of another class is a crowd"
    assert open_dataset(write(document), labels=["cat"]).summary.unknown_classes == {"dog": 1}


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"bbox": [1, 1, 0, 5]}, "box without area"),
        ({"bbox": [1, 1, -4, 5]}, "box without area"),
        ({"bbox": [1, float("nan"), 4, 5]}, "box that is not four finite numbers"),
        ({"bbox": [1, float("inf"), 4, 5]}, "box that is not four finite numbers"),
        ({"bbox": [1, 10**400, 4, 5]}, "box that is not four finite numbers"),
        ({"bbox": [1, 2, 3]}, "box that is not four finite numbers"),
        ({"bbox": ["one", 2, 3, 4]}, "box that is not four finite numbers"),
        ({"bbox": None}, "box that is not four finite numbers"),
        ({"category_id": 99}, "box of an unknown class"),
        ({"category_id": "dog"}, "box of an unknown class"),
        ({"category_id": [20]}, "box of an unknown class"),
        ({"image_id": 99}, "box of an unknown image"),
        ({"image_id": {"a": 1}}, "box of an unknown image"),
    ],
)
def test_annotations_that_make_no_sense_are_left_out(write: Write, document, annotation, reason: str) -> None:
    document["annotations"].append({"image_id": 9, "category_id": 20, "bbox": [1, 1, 5, 5]} | annotation)
    file = write(document)
    dataset = open_dataset(file)
    assert dataset.summary.problems == {reason: 1}
    assert dataset.summary.boxes == 2
    with pytest.raises(DataError, match=reason):
        open_dataset(file, strict=True)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ({"id": 11, "file_name": "missing.png"}, "image that is missing"),
        ({"id": 11, "file_name": "../../../etc/passwd"}, "path that leaves the data set"),
        ({"id": 11, "file_name": "/etc/passwd"}, "path that leaves the data set"),
        ({"id": None, "file_name": "b.png"}, "entry of the json that cannot be read"),
        ({"id": 11, "file_name": 5}, "entry of the json that cannot be read"),
        ({"id": 11, "file_name": "a\0.png"}, "entry of the json that cannot be read"),
    ],
)
def test_images_that_make_no_sense_are_left_out(write: Write, document, image, reason: str) -> None:
    document["images"].append(image)
    dataset = open_dataset(write(document))
    assert dataset.summary.problems == {reason: 1}
    assert [item.path.name for item in dataset] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read"),
        ('{"images": [', "cannot read"),
        ('{"images": ' + "[" * 100_000, "cannot read"),
        ("[]", "no list named images, annotations, categories"),
        ('{"images": [], "annotations": {}}', "no list named annotations, categories"),
        ('{"images": [], "annotations": [], "categories": []}', "no image in the json"),
        ('{"images": [3], "annotations": [null], "categories": ["cat"]}', "no image in the json"),
    ],
)
def test_what_is_no_coco_json_is_refused(write: Write, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(write(text), data_format="coco")


def test_images_that_are_nowhere_are_an_error_that_says_where_was_looked(
    write: Write, document, tmp_path
) -> None:
    file = write(document)
    (tmp_path / "a.png").unlink()
    (tmp_path / "b.png").unlink()
    with pytest.raises(DataError, match=r"got no a\.png; expected its images in one of"):
        open_dataset(file)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", ["\ud800.jpg", "x" * 300 + ".jpg"])
def test_a_name_that_no_file_can_have_is_a_lost_image(write: Write, document, name: str, first: bool) -> None:
    document["images"].insert(0 if first else 2, {"id": 11, "file_name": name})
    dataset = open_dataset(write(document))
    assert [item.path.name for item in dataset] == ["a.png", "b.png"]
    assert (dataset.summary.lost_images, sum(dataset.summary.problems.values())) == (1, 1)
    str(dataset.summary).encode("utf-8")


def test_a_category_name_that_no_text_can_hold_is_written_out(write: Write, document) -> None:
    document["categories"][0]["name"] = "d\ud800g"
    assert open_dataset(write(document)).labels == ("cat", "d\\ud800g")


def test_a_split_of_a_single_json_is_refused_with_the_way_to_do_without(write: Write, document) -> None:
    file = write(document)
    for path in (file, file.parent):
        with pytest.raises(DataError, match=r'set train = "" and evaluate = ""'):
            open_dataset(path, "train")


def test_one_id_for_two_categories_is_refused(write: Write, document) -> None:
    document["categories"].append({"id": 3, "name": "cow"})
    with pytest.raises(DataError, match="two categories have one id"):
        open_dataset(write(document))


def test_coco128_is_read_whole(test_data: Path) -> None:
    dataset = open_dataset(test_data / "data" / "coco128" / "annotations" / "instances_train2017.json")
    items = list(dataset)
    assert (len(items), len(dataset.labels)) == (128, 80)
    assert dataset.labels[:2] + dataset.labels[-1:] == ("person", "bicycle", "toothbrush")
    assert str(dataset.summary) == "128 images, 939 boxes"
    assert sum(item.ignore.sum() for item in items) == 10
    empty = [item.path.stem for item in items if not len(item.boxes_xyxy)]
    assert empty == ["000000000250", "000000000508"]


def test_areas_are_those_that_the_json_states_and_else_those_of_the_boxes(write: Write, document) -> None:
    for area in (17.5, -1, None, "30", True, float("nan"), 10**400):
        annotation = {"image_id": 9, "category_id": 20, "bbox": [1, 1, 4, 5], "area": area}
        document["annotations"].append(annotation)
    first, second = open_dataset(write(document))
    assert first.areas is None, "no area is stated there"
    assert second.areas.tolist() == [17.5, 20, 20, 20, 20, 20, 20]


def test_images_that_cannot_be_had_are_counted_apart_from_harmless_faults(
    write: Write, document, tmp_path: Path
) -> None:
    document["images"].append({"id": 11, "file_name": "missing.png"})
    document["images"].append({"id": 12, "file_name": "a.png"})
    document["annotations"].append({"image_id": 9, "category_id": 20, "bbox": [1, 1, 0, 5]})
    dataset = open_dataset(write(document))
    assert dataset.summary.lost_images == 1
    (tmp_path / "b.png").write_bytes(b"no image")
    assert [item.path.name for item in dataset] == ["a.png"]
    record = dataset.summary.record()
    assert (record.images, record.boxes, record.lost_images) == (1, 2, 2)
    assert record.problems == dict(dataset.summary.problems)
    assert record.examples["image that is missing"] == ("missing.png",)
