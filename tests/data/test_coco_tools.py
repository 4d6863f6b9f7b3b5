"""COCO json as annotation tools write it: names of images, ids and boxes in their many forms."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedet.data import open_dataset
from edgedet.data.dataset import Summary
from edgedet.data.indexed import Objects
from edgedet.errors import DataError

BOX = [10, 20, 30, 25]
CORNERS = [10, 20, 40, 45]

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a json of images with one box each, at a path below the root."""

    def put(names: Sequence[str], file: str = "a.json", *, bom: str = "", **annotation: Any) -> Path:
        document = {
            "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
            "annotations": [
                {"id": i, "image_id": i, "category_id": 1, "bbox": BOX} | annotation
                for i in range(len(names))
            ],
            "categories": [{"id": 1, "name": "cat"}],
        }
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(bom + json.dumps(document), "utf-8")
        return path

    return put


@pytest.mark.parametrize(
    "folder", ["images/{}", "{}", "{}/images", "Images/{}2017", "data/{}_2017", "images/{}/cam1"]
)
@pytest.mark.parametrize("json_file", ["annotations/instances_{}.json", "Annotations/{}/a.json", "{}.json"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_equal_names_in_the_folders_of_two_splits_are_those_of_the_split(
    write: Write, tmp_path: Path, put_image, folder: str, json_file: str, split: str
) -> None:
    for number, name in enumerate(("train", "val")):
        write(["0001.png"], json_file.format(name))
        put_image(tmp_path / folder.format(name) / "0001.png", 60 + number, 80)
    expected = f"{folder.format(split)}/0001.png"
    assert list(open_dataset(tmp_path, split).image_ids) == [expected]
    assert list(open_dataset(tmp_path / json_file.format(split)).image_ids) == [expected]


def test_the_folder_is_found_where_the_first_images_are_missing(
    write: Write, tmp_path: Path, put_image
) -> None:
    put_image(tmp_path / "images" / "150.png")
    summary = open_dataset(write([f"{number}.png" for number in range(200)])).summary
    assert (summary.images, summary.lost_images) == (1, 199)


def test_an_image_that_the_folder_of_its_split_lacks_is_missing(
    write: Write, tmp_path: Path, put_image
) -> None:
    write(["1.png", "2.png", "3.png"], "annotations/val.json")
    for path in ("val/1.png", *(f"train/{number}.png" for number in (1, 2, 3))):
        put_image(tmp_path / "images" / path)
    dataset = open_dataset(tmp_path, "val")
    assert list(dataset.image_ids) == ["images/val/1.png"]
    assert dataset.summary.problems == {"image that is missing": 2}
    (tmp_path / "images" / "val" / "1.png").unlink()
    with pytest.raises(DataError, match="cannot be found"):
        open_dataset(tmp_path, "val")


def test_a_split_of_the_images_of_another_is_read_and_counted(
    write: Write, tmp_path: Path, put_image
) -> None:
    write(["1.png"], "annotations/val.json")
    put_image(tmp_path / "train2017" / "1.png")
    summary = open_dataset(tmp_path, "val").summary
    assert summary.corrections == {"image in the folder of another split": 1}


def test_folders_between_which_nothing_decides_are_refused(write: Write, tmp_path: Path, put_image) -> None:
    file = write(["1.png"], "annotations/a.json")
    put_image(tmp_path / "one" / "1.png")
    put_image(tmp_path / "two" / "1.png")
    assert len(open_dataset(file)) == 1, "copies of one file"
    put_image(tmp_path / "two" / "1.png", 50)
    with pytest.raises(DataError, match=r"more than one folder; got different files .* in one, two"):
        open_dataset(file)
    put_image(tmp_path / "images" / "1.png", 55)
    assert list(open_dataset(file).image_ids) == ["images/1.png"]


@pytest.mark.parametrize(
    ("name", "counted"),
    [
        ("images\\my cat.png", 0),
        (".\\images\\my cat.png", 0),
        ("images/my%20cat.png", 0),
        ("my%20cat.png", 0),
        ("/data/local-files/?d=images/my%20cat.png", 0),
        ("../../label-studio/media/upload/4/my cat.png", 1),
        ("C:\\me\\images\\my cat.png", 1),
        ("/mnt/me/project/images/my cat.png", 1),
        ("https://host/upload/my%20cat.png?token=a/b", 1),
        ("s3://bucket/images/my cat.png", 1),
        ("upload/MY CAT.PNG", 1),
    ],
)
@pytest.mark.parametrize("file", ["result.json", "annotations/result.json"])
def test_an_image_is_found_by_a_path_of_another_system(
    write: Write, tmp_path: Path, put_image, name: str, counted: int, file: str
) -> None:
    put_image(tmp_path / "images" / "my cat.png")
    dataset = open_dataset(write([name], file))
    assert [item.path.name for item in dataset] == ["my cat.png"]
    assert dataset.root == tmp_path
    assert list(dataset.image_ids) == ["images/my cat.png"]
    assert dataset.summary.corrections.total() == counted
    assert not dataset.summary.problems


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["upload/1/a.png", "upload/2/a.png", "b.png"], ["a.png", "b.png"]),
        (["upload/1/a.png", "b.png"], ["x/a.png", "y/a.png", "b.png"]),
    ],
)
def test_a_base_name_that_two_have_finds_no_image(
    write: Write, tmp_path: Path, put_image, names, files
) -> None:
    for name in files:
        put_image(tmp_path / "images" / name)
    dataset = open_dataset(write(names))
    assert list(dataset.image_ids) == ["images/b.png"]
    assert dataset.summary.lost_images == len(names) - 1


def test_images_in_folders_that_the_json_leaves_out_are_found(
    write: Write, tmp_path: Path, put_image
) -> None:
    put_image(tmp_path / "images" / "1" / "2" / "3" / "a.png")
    assert list(open_dataset(write(["a.png"])).image_ids) == ["images/1/2/3/a.png"]


def test_one_file_with_two_ids_has_the_boxes_of_both(write: Write, tmp_path: Path, put_image) -> None:
    put_image(tmp_path / "a.png")
    file = write(["a.png", ".\\a.png", "a.png"])
    document = json.loads(file.read_text())
    document["annotations"][1]["bbox"] = [1, 2, 3, 4]
    file.write_text(json.dumps(document))
    (item,) = dataset = open_dataset(file)
    assert item.boxes_xyxy.tolist() == [CORNERS, [1, 2, 4, 6]]
    assert dataset.summary.corrections == {"image that is listed twice": 2, "box that is listed twice": 1}
    document["images"][0] |= {"height": 60, "width": 80}
    document["images"][1] |= {"height": 61, "width": 80}
    file.write_text(json.dumps(document))
    assert open_dataset(file).summary.problems == {"image that is listed in two sizes": 1}


def test_one_id_for_two_files_leaves_out_both(write: Write, tmp_path: Path, put_image) -> None:
    for name in ("a.png", "b.png", "c.png"):
        put_image(tmp_path / name)
    file = write(["a.png", "b.png", "c.png"])
    file.write_text(file.read_text().replace('"id": 1, "file_name"', '"id": 0, "file_name"'))
    dataset = open_dataset(file)
    assert list(dataset.image_ids) == ["c.png"]
    assert dataset.summary.problems == {"image whose id is taken": 2, "box of an unknown image": 1}


@pytest.mark.parametrize(("one", "other"), [(0, "0"), (0.0, 0), ("0", 0.0), ("0.0", 0), ("a1", "a1")])
@pytest.mark.parametrize("key", ["image", "category"])
def test_ids_are_equal_in_every_form(write: Write, tmp_path: Path, put_image, one, other, key: str) -> None:
    put_image(tmp_path / "a.png")
    file = write(["a.png"], **{f"{key}_id": other})
    document = json.loads(file.read_text())
    document["images" if key == "image" else "categories"][0]["id"] = one
    file.write_text(json.dumps(document))
    (item,) = open_dataset(file, strict=True)
    assert item.boxes_xyxy.tolist() == [CORNERS]


POLYGON = [[10, 20, 40, 20, 40, 45], [12, 30, 20, 31, 20, 45]]


@pytest.mark.parametrize(
    "annotation",
    [
        {"bbox": ["10", " 20", "30.0", "25"]},
        {"bbox": "[10, 20, 30, 25]"},
        {"bbox": "10, 20, 30, 25"},
        {"bbox": {"x": 10, "y": 20, "width": "30", "height": 25, "cx": 25, "cy": 32}},
        {"bbox": {"x": 10, "y": 20, "w": 30, "h": 25}},
        {"bbox": {"left": 10, "top": 20, "width": 30, "height": 25}},
        {"bbox": {"xmin": 10, "ymin": 20, "xmax": 40, "ymax": 45}},
        {"bbox": None, "segmentation": POLYGON},
        {"bbox": [], "segmentation": POLYGON[:1]},
        {"bbox": [0, 0, 0, 0], "segmentation": POLYGON},
        {"bbox": None, "segmentation": POLYGON[0]},
        {"bbox": None, "segmentation": [[[10, 20], [40, 20], [40, 45]]]},
        {"bbox": "", "segmentation": json.dumps(POLYGON)},
    ],
)
def test_a_box_is_read_in_every_form(write: Write, tmp_path: Path, put_image, annotation) -> None:
    put_image(tmp_path / "a.png")
    (item,) = dataset = open_dataset(write(["a.png"], **annotation))
    assert item.boxes_xyxy.tolist() == [CORNERS]
    expected = {"box taken from its polygon": 1} if "segmentation" in annotation else {}
    assert dataset.summary.corrections == expected
    assert not dataset.summary.problems


@pytest.mark.parametrize(
    "annotation",
    [
        {"bbox": {"cx": 1, "cy": 2, "w": 3, "h": 4}},
        {"bbox": "ten"},
        {"bbox": [True, 1, 2, 3]},
        {"bbox": None, "segmentation": {"counts": [1, 2], "size": [60, 80]}},
        {"bbox": None, "segmentation": [[1, 2, 3, 4]]},
        {"bbox": None, "segmentation": [[1, 2, 3, 4, 5, 6, 7]]},
        {"bbox": None, "segmentation": [[1, 2, 3, 4, 5, None]]},
    ],
)
def test_what_is_no_box_is_left_out(write: Write, tmp_path: Path, put_image, annotation) -> None:
    put_image(tmp_path / "a.png")
    summary = open_dataset(write(["a.png"], **annotation)).summary
    assert (summary.boxes, summary.problems) == (0, {"box that is not four finite numbers": 1})


@pytest.mark.parametrize(
    ("iscrowd", "ignored"), [(0, 0), ("0", 0), (False, 0), (None, 0), (1, 1), ("1", 1), (1.0, 1)]
)
def test_crowds_are_ignored_in_every_form(
    write: Write, tmp_path: Path, put_image, iscrowd, ignored: int
) -> None:
    put_image(tmp_path / "a.png")
    (item,) = open_dataset(write(["a.png"], iscrowd=iscrowd, segmentation={"counts": [1], "size": [60, 80]}))
    assert item.ignore.tolist() == [bool(ignored)]


@pytest.mark.parametrize("height", [60.0, "60"])
def test_a_size_is_a_number_in_every_form(write: Write, tmp_path: Path, put_image, height) -> None:
    put_image(tmp_path / "a.png", 60, 90)
    file = write(["a.png"])
    document = json.loads(file.read_text())
    document["images"][0] |= {"height": height, "width": 80}
    file.write_text(json.dumps(document))
    with pytest.raises(DataError, match="drawn on another image"):
        open_dataset(file)[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("first", ["", '"videos": [], ', '"x": {"images": 3, "y": "%s"},' % ("z" * 2**20)])
@pytest.mark.parametrize("name", ["c.json", "C.JSON"])
def test_a_json_is_recognised_by_its_sections(
    write: Write, tmp_path: Path, put_image, encoding: str, first: str, name: str
) -> None:
    put_image(tmp_path / "a.png")
    text = write(["a.png"]).read_text().replace("{", "{" + first, 1)
    (tmp_path / "a.json").unlink()
    (tmp_path / name).write_text(text, encoding)
    for path in (tmp_path, tmp_path / name):
        assert open_dataset(path).summary.boxes == 1


@pytest.mark.parametrize("text", ['{"images": ["a.png"]}', "{}", '[{"images": [], "annotations": []}]', "x"])
def test_other_json_beside_images_is_no_data_set(tmp_path: Path, put_image, text: str) -> None:
    put_image(tmp_path / "a.png")
    (tmp_path / "a.json").write_text(text.replace('"images": [', '"pages": ['))
    assert open_dataset(tmp_path).format == "images"


@pytest.mark.parametrize(
    ("folders", "split", "expected"),
    [
        (["train", "valid", "test"], "val", "valid"),
        (["train", "valid", "test"], "train+val", "train valid"),
        (["Train", "Validation"], "val", "Validation"),
        (["train", "val"], "valid", "val"),
        (["train", "val", "valid"], "val", "val"),
    ],
)
def test_a_split_of_folders_is_found_by_each_of_its_names(
    write: Write, tmp_path: Path, put_image, folders: list[str], split: str, expected: str
) -> None:
    for folder in folders:
        write(["a.png"], f"{folder}/_annotations.coco.json")
        put_image(tmp_path / folder / "a.png")
    dataset = open_dataset(tmp_path, split)
    assert list(dataset.image_ids) == [f"{folder}/a.png" for folder in expected.split()]
    np.testing.assert_array_equal(dataset[0].boxes_xyxy, [CORNERS])


@pytest.mark.parametrize("file", ["instances_val2017.json", "val_coco.json", "Validation.json"])
def test_a_split_of_files_is_found_by_each_of_its_names(
    write: Write, tmp_path: Path, put_image, file
) -> None:
    put_image(tmp_path / "images" / "a.png")
    for name in (file, "instances_train2017.json", "train_val.json"):
        write(["a.png"], f"annotations/{name}")
    assert len(open_dataset(tmp_path, "val")) == 1


def test_a_box_is_looked_up_among_many_without_looking_at_each() -> None:
    compared = []

    class Counted(int):
        __hash__ = int.__hash__

        def __eq__(self, other: object) -> bool:
            compared.append(other)
            return int(self) == other

    objects = Objects(Summary(), "a.png")
    for class_id in range(100):
        objects.add([1, 2, 3, 4], class_id, "cat")
    assert objects.has(["1", 2.0, 3, 4], Counted(99))
    assert not objects.has([1, 2, 3, 4], Counted(100))
    assert len(compared) < 10
