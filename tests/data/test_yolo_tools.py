"""YOLO data sets as annotation tools write them: layouts, descriptions of splits and kinds of rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgedet.data import open_dataset
from edgedet.data.yolo_yaml import read_description
from edgedet.errors import DataError

Plant = Callable[..., Path]

ROW = "0 0.5 0.5 0.5 0.5\n"
CORNERS = [20, 15, 60, 45]
NAMES = "names: [cat, dog]\n"


def _files(*names: str) -> dict[str, str]:
    """Files with what their suffix asks for."""
    return {name: ROW if name.endswith(".txt") else "" for name in names}


def _check(dataset, expected: str) -> None:
    """Every image has the one box, and nothing was left out."""
    assert dataset.format == "yolo"
    assert " ".join(dataset.image_ids) == expected
    for item in dataset:
        np.testing.assert_allclose(item.boxes_xyxy, [CORNERS], atol=1e-4)
    assert str(dataset.summary) == f"{len(dataset)} images, {len(dataset)} boxes"


ROBOFLOW = _files("train/images/a.png", "train/labels/a.txt", "valid/images/b.png", "valid/labels/b.txt")
ROBOFLOW_YAML = "train: ../train/images\nval: ../valid/images\n"
ELSEWHERE = "train: /content/x/train/images\nval: C:\\x\\valid\\images\n"
NESTED = _files(
    *(f"images/{name}.png" for name in ("train/1/a", "train/2/a", "train/a", "val/1/a")),
    *(f"labels/{name}.txt" for name in ("train/1/a", "train/2/a", "train/a", "val/1/a")),
)
CAMERAS = _files(*(f"images/c{n}/{n}.png" for n in "123"), *(f"labels/c{n}/{n}.txt" for n in "123"))
FLAT = _files(*(f"images/{n}.png" for n in "123"), *(f"labels/{n}.txt" for n in "123"))
BESIDE = _files("train/a.png", "train/a.txt", "valid/b.png", "valid/b.txt")
APART = _files("train/a.png", "labels/train/a.txt", "train/b/c.png", "labels/train/b/c.txt")
INSIDE = _files("train/a.png", "train/labels/a.txt")
CAPITALS = _files("Images/Train/a.png", "LABELS/train/a.txt")
CVAT = _files("obj_train_data/a.png", "obj_train_data/a.txt") | {
    **_files("obj_valid_data/x/b.png", "obj_valid_data/x/b.txt"),
    "obj.names": "cat\ndog\n",
    "obj.data": "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n",
    "train.txt": "data/obj_train_data/a.png\n",
    "valid.txt": "data/obj_valid_data/x/b.png\n",
}
LISTS = FLAT | {
    "train.txt": "./images/1.png\nimages/3.png\n",
    "lists/a.txt": "../images/2.png\n",
    "Val.txt": "/mnt/x/images/2.png\nC:\\x\\images\\1.png",
}


@pytest.mark.parametrize(
    ("files", "description", "split", "expected"),
    [
        (ROBOFLOW, ROBOFLOW_YAML, "val", "valid/images/b.png"),
        (ROBOFLOW, ROBOFLOW_YAML, "valid", "valid/images/b.png"),
        (ROBOFLOW, "", "val", "valid/images/b.png"),
        (ROBOFLOW, "train: train\nval: valid\n", "val", "valid/images/b.png"),
        (ROBOFLOW, ELSEWHERE, "val", "valid/images/b.png"),
        (ROBOFLOW, "x: [valid/images, train/images]\n", "x", "valid/images/b.png train/images/a.png"),
        (ROBOFLOW, "", None, "train/images/a.png valid/images/b.png"),
        (NESTED, "", "train", "images/train/1/a.png images/train/2/a.png images/train/a.png"),
        (NESTED, "val: images/val\n", "val", "images/val/1/a.png"),
        (CAMERAS, "train:\n  - images/c1\n  - images/c2\n", "train", "images/c1/1.png images/c2/2.png"),
        (CAMERAS, "val: ['images/c1', \"./images/c3\"] #\n", "val", "images/c1/1.png images/c3/3.png"),
        (CAMERAS, "train:\n- images\\c2\n", "train", "images/c2/2.png"),
        (LISTS, "train: train.txt\n", "train", "images/1.png images/3.png"),
        (LISTS, "val: [lists/a.txt]\n", "val", "images/2.png"),
        (LISTS, "", "val", "images/2.png images/1.png"),
        (LISTS, "val: images\n", "val", "images/1.png images/2.png images/3.png"),
        (BESIDE, "", "val", "valid/b.png"),
        (BESIDE, "train: train\n", None, "train/a.png valid/b.png"),
        (_files("a.png", "b.png", "b.txt") | {"a.TXT": ROW}, "", None, "a.png b.png"),
        (APART, "", "train", "train/a.png train/b/c.png"),
        (INSIDE, "train: train\nval: train\n", "val", "train/a.png"),
        (CAPITALS, "train: images/train\n", "train", "Images/Train/a.png"),
        (_files("Images/a.png", "Labels/a.txt"), "", None, "Images/a.png"),
        (_files("JPEGImages/a.png", "labels/a.txt"), "", None, "JPEGImages/a.png"),
    ],
)
def test_a_layout_is_read(plant: Plant, files, description: str, split: str | None, expected: str) -> None:
    root = plant(files | {"data.yaml": description + NAMES})
    _check(open_dataset(root, split), expected)
    _check(open_dataset(root / "data.yaml", split), expected)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", "obj_train_data/a.png"),
        ("val", "obj_valid_data/x/b.png"),
        (None, "obj_train_data/a.png obj_valid_data/x/b.png"),
    ],
)
@pytest.mark.parametrize("opened", ["", "obj.data"])
def test_a_darknet_description_is_read(plant: Plant, split: str | None, expected: str, opened: str) -> None:
    dataset = open_dataset(plant(CVAT) / opened, split)
    _check(dataset, expected)
    assert dataset.labels == ("cat", "dog")


@pytest.mark.parametrize(
    "place", ["classes.txt", "train/_darknet.labels", "labels/classes.txt", "data/obj.names"]
)
def test_names_are_read_from_a_file_of_them(plant: Plant, place: str) -> None:
    root = plant(BESIDE | {place: "\ufeffcat\r\ndog\n"})
    assert open_dataset(root).labels == ("cat", "dog")


@pytest.mark.parametrize(
    "files",
    [
        {"a.yaml": "names: [cat, dog]\n", "b.yaml": "names: [dog, cat]\n"},
        {"classes.txt": "cat\n", "labels/classes.txt": "dog\n"},
    ],
)
def test_names_that_disagree_are_refused(plant: Plant, files) -> None:
    root = plant(BESIDE | files)
    with pytest.raises(DataError, match="name the classes differently"):
        open_dataset(root)
    assert open_dataset(plant({"data.yaml": NAMES})).labels == ("cat", "dog")


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("split", ["val", None])
def test_a_yaml_says_where_its_root_is(
    plant: Plant, tmp_path: Path, absolute: bool, split: str | None
) -> None:
    path = tmp_path / "sets" / "cats" if absolute else "../sets/cats"
    plant(_files("sets/cats/images/val/a.png", "sets/cats/labels/val/a.txt"))
    root = plant({"yaml/cats.yaml": f"path: {path}  # here\nval: images/val\n{NAMES}"})
    dataset = open_dataset(root / "yaml" / "cats.yaml", split)
    _check(dataset, "images/val/a.png")
    assert dataset.root == tmp_path / "sets" / "cats"


@pytest.mark.parametrize("path", ["/nowhere/cats", "../datasets/cats", "cats"])
def test_a_root_of_another_machine_is_the_folder_of_the_yaml(plant: Plant, path: str) -> None:
    root = plant(ROBOFLOW | {"x.yaml": f"path: {path}\nval: valid/images\n{NAMES}"})
    for opened in (root, root / "x.yaml"):
        _check(open_dataset(opened, "val"), "valid/images/b.png")


def test_a_split_of_the_yaml_that_is_not_there_is_named(plant: Plant) -> None:
    root = plant(ROBOFLOW | {"data.yaml": f"val: ../gone/images\nmixed: [gone, train/images]\n{NAMES}"})
    with pytest.raises(DataError, match=r"got test; expected one of mixed, train, valid"):
        open_dataset(root, "test")
    plant({"data.yaml": f"test: ../gone/images\n{NAMES}"})
    with pytest.raises(DataError, match=r"got test \(\.\./gone/images is not there\)"):
        open_dataset(root, "test")
    plant({"data.yaml": f"mixed: [gone, train/images]\n{NAMES}"})
    summary = open_dataset(root, "mixed").summary
    assert summary.problems == {"folder or list of the split that is missing": 1}
    assert summary.lost_images == 1


@pytest.mark.parametrize(
    "entry",
    ["../outside/images", "/etc", "images/../../outside/images", "../images", "out.txt", "labels.yaml"],
)
def test_a_split_never_leaves_the_root(plant: Plant, tmp_path: Path, entry: str) -> None:
    plant(_files("outside/images/a.png", "outside/labels/a.txt"))
    lines = f"{tmp_path}/outside/images/a.png\n../outside/images/a.png\n"
    root = plant({"in/images/x.png": "", "in/labels/x.txt": ROW, "in/out.txt": lines}) / "in"
    plant({"in/data.yaml": f"val: {entry}\n{NAMES}", "in/labels.yaml": "x: y"})
    if entry == "../images":
        _check(open_dataset(root, "val"), "images/x.png")
    else:
        with pytest.raises(DataError, match=r"no usable image|split"):
            open_dataset(root, "val")


def test_lines_of_a_list_that_name_no_image_are_counted(plant: Plant) -> None:
    lines = "images/1.png\nimages/9.png\nelse/2.png\nx/3.png\ny/3.png\nlabels/1.txt\n"
    dataset = open_dataset(plant(FLAT | {"train.txt": lines, "data.yaml": NAMES}), "train")
    assert dataset.summary.problems == {"listed image that is missing": 5}
    assert list(dataset.image_ids) == ["images/1.png"]


@pytest.mark.parametrize(
    ("files", "orphan"),
    [(BESIDE | {"train/readme.txt": "hello"}, "train/c.txt"), (NESTED, "labels/train/3/c.txt")],
)
def test_labels_without_an_image_are_counted_in_every_layout(plant: Plant, files, orphan: str) -> None:
    root = plant(files | {orphan: ROW, "data.yaml": NAMES})
    assert open_dataset(root, "train").summary.examples == {"label file without an image": ["c.txt"]}


def test_a_label_file_that_two_images_could_have_is_that_of_one(plant: Plant) -> None:
    root = plant(_files("images/train/a.png", "train/a.png", "labels/train/a.txt") | {"data.yaml": NAMES})
    dataset = open_dataset(root, "train")
    assert list(dataset.image_ids) == ["images/train/a.png"]
    assert dataset.summary.problems == {"image whose name is taken": 1}


def test_images_of_a_folder_without_labels_are_counted(plant: Plant) -> None:
    root = plant(FLAT | _files("images/new/8.png", "images/new/9.png", "images/7.png") | {"data.yaml": NAMES})
    dataset = open_dataset(root)
    assert dataset.summary.corrections == {"image of a folder without label files, taken as background": 2}
    assert len(dataset) == 6


def test_an_image_of_two_joined_splits_is_counted(plant: Plant) -> None:
    root = plant(ROBOFLOW | {"data.yaml": f"train: train/images\nval: train/images\n{NAMES}"})
    dataset = open_dataset(root, "train+val")
    assert dataset.summary.corrections == {"image that is listed twice": 1}
    assert len(open_dataset(root)) == 2


def test_captions_beside_images_are_no_labels(plant: Plant) -> None:
    root = plant({"a.png": "", "a.txt": "a cat on a mat", "b.png": "", "b.txt": "5 cats"})
    assert open_dataset(root).format == "images"


POSE3 = "0 0.5 0.5 0.5 0.5 0.3 0.3 2 0.7 0.3 1 0.7 0.7 2 0 0 0\n"
TRIANGLE = "row that is a triangle or a box with a confidence and a track"
POINTS = "row that is a polygon or a box with points in it, without kpt_shape"
POSE2 = "0 0.5 0.5 0.5 0.5 0.3 0.3 0.7 0.7\n"


@pytest.mark.parametrize(
    ("kpt_shape", "row"),
    [
        ("[4, 3]", POSE3),
        ("\n  - 4\n  - 3", POSE3),
        ("[4, 3]  # points", POSE3.strip() + " 0.9"),
        ("[2, 2]", POSE2),
        ("[4, 3]", ROW),
        ("[4, 3]", ROW.strip() + " 0.9"),
    ],
)
def test_the_box_of_a_pose_is_its_box(plant: Plant, kpt_shape: str, row: str) -> None:
    root = plant({"a.png": "", "a.txt": row, "data.yaml": f"kpt_shape: {kpt_shape}\n{NAMES}"})
    (item,) = dataset = open_dataset(root)
    np.testing.assert_allclose(item.boxes_xyxy, [CORNERS], atol=1e-4)
    assert dataset.summary.corrections.total() == row.endswith("0.9")


@pytest.mark.parametrize(
    ("description", "row", "reason"),
    [
        ("", POSE3, "row that looks like a pose, without kpt_shape"),
        ("", "0 0.5 0.5 0.5 0.5 0.3 0.3 2", "row that looks like a pose, without kpt_shape"),
        ("kpt_shape: [3, 3]\n", POSE3, "row that cannot be read"),
        ("kpt_shape: [4, 3]\n", "0 0.1 0.1 0.5 0.1 0.5 0.5", "row that cannot be read"),
        ("", "0 0.5 0.5 0.5 0.5 nan", "row that cannot be read"),
        ("", "0 0.5 0.5 0.5 0.5 0.1 0.2 0.3", "row that cannot be read"),
        ("", "0 0.1 0.2 nan 0.5 0.3 0.8", "row that cannot be read"),
        ("", "0 0.1 0.2 0.5 inf 0.3 0.8 0.4 0.4", "row that cannot be read"),
        ("", "0 0.5 0.5 0.2 0.2 0.9 1", TRIANGLE),
        ("", "0 0.5 0.5 0.2 0.2 0.9 0", TRIANGLE),
        ("", POSE2, POINTS),
        ("", POSE2 + "1 0.4 0.5 0.4 0.4 0.4 0.4 0 0\n", POINTS),
        ("", POSE2 * 8 + "1 0.4 0.5 0.2 0.2 0.4 0.4 0.9 0.9\n", POINTS),
    ],
)
def test_a_row_of_another_shape_is_left_out(plant: Plant, description: str, row: str, reason: str) -> None:
    files = {f"labels/{name}.txt": "" for name in "23"}
    root = plant(FLAT | files | {"labels/1.txt": row, "data.yaml": description + NAMES})
    summary = open_dataset(root).summary
    assert (summary.problems, summary.boxes) == ({reason: len(row.strip().splitlines())}, 0)


@pytest.mark.parametrize(
    ("rows", "corners"),
    [
        ("0 0.1 0.2 0.5 0.1 0.5 1\n", [8, 6, 40, 60]),  # as a box it would leave the image
        ("0 0.5 0.5 0.6 0.5 0.6 0.6\n1 0.5 0.5 0.6 0.5 0.6 0.6 0.5 0.6\n", [40, 30, 48, 36]),
        ("0 0.9 0.9 0.95 0.9 0.95 0.95\n0 0.5 0.5 0.6 0.5 0.6 0.6", [72, 54, 76, 57]),
    ],
)
def test_polygons_are_told_from_boxes_with_more(plant: Plant, rows: str, corners: list[float]) -> None:
    (item,) = dataset = open_dataset(plant({"a.png": "", "a.txt": rows, "data.yaml": NAMES}))
    np.testing.assert_allclose(item.boxes_xyxy[0], corners, atol=1e-4)
    assert str(dataset.summary) == f"1 images, {len(rows.strip().splitlines())} boxes"


@pytest.mark.parametrize("more", ["0.91", "1", "17", "0.91 17"])
def test_a_confidence_and_a_track_are_not_used_but_counted(plant: Plant, more: str) -> None:
    root = plant({"a.png": "", "a.txt": f"{ROW.strip()} {more}\n", "data.yaml": NAMES})
    (item,) = dataset = open_dataset(root)
    np.testing.assert_allclose(item.boxes_xyxy, [CORNERS])
    assert dataset.summary.corrections == {"row with a confidence or a track, which is not used": 1}


def test_labels_and_a_yaml_in_utf_16_are_read(plant: Plant) -> None:
    plant({"a.txt": ROW, "data.yaml": NAMES}, "utf-16")
    _check(open_dataset(plant({"a.png": ""})), "a.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {a: b}\n", "places of splits"),
        ("train:\n  a: b\n", "places of splits"),
        ("val: [a, [b]]\n", "places of splits"),
        ("val: &x images\n", "places of splits"),
        ("kpt_shape: 17\n", "kpt_shape"),
        ("kpt_shape: [17, 4]\n", "kpt_shape"),
    ],
)
def test_a_yaml_in_another_way_is_refused(plant: Plant, text: str, message: str) -> None:
    with pytest.raises(DataError, match=f"cannot read the {message}"):
        read_description(plant({"x.yaml": text + NAMES}) / "x.yaml")


def test_keys_without_a_place_are_no_splits(plant: Plant) -> None:
    text = "roboflow:\n  project: p\nauthor: me\ntest:  # none\nval: null\nnc: 2\ndownload: |\n  x\n"
    assert read_description(plant({"x.yaml": text + NAMES}) / "x.yaml").splits == {"author": ("me",)}
