"""Formats are told apart, folders of images are read, and what fits no format is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgedet import registry
from edgedet.data import open_dataset
from edgedet.data.dataset import Reader
from edgedet.data.indexed import relative_inside
from edgedet.errors import DataError, UsageError


@pytest.mark.parametrize(
    ("path", "data_format"),
    [
        ("bccd", "voc"),
        ("cards", "voc"),
        ("cards/train", "voc"),
        ("coco128", "yolo"),
        ("coco128/config.yaml", "yolo"),
        ("coco128/annotations/instances_train2017.json", "coco"),
        ("coco128/images", "images"),
        ("bccd/JPEGImages", "images"),
        ("media", "images"),
    ],
)
def test_the_format_of_real_data_is_recognised(test_data: Path, path: str, data_format: str) -> None:
    assert open_dataset(test_data / "data" / path).format == data_format


def test_the_word_builtin_is_the_procedural_data_set() -> None:
    assert open_dataset("builtin").format == "builtin"
    assert open_dataset(Path("builtin")).format == "builtin"


def test_a_folder_called_builtin_is_opened_as_a_path(
    tmp_path: Path, put_image: Callable[..., Path], monkeypatch
) -> None:
    put_image(tmp_path / "builtin" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert open_dataset("./builtin").format == "images"


def test_a_format_can_be_forced(test_data: Path) -> None:
    root = test_data / "data" / "coco128"
    assert open_dataset(root, data_format="coco").format == "coco"
    assert len(open_dataset(root, data_format="images")) == 256
    with pytest.raises(UsageError, match="builtin, coco, images, voc, yolo"):
        open_dataset(root, data_format="csv")


@pytest.mark.parametrize("name", list(registry.READERS))
def test_every_reader_of_the_table_is_there(name: str) -> None:
    assert isinstance(registry.READERS.load(name), Reader)


def test_what_fits_no_format_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    for name in ("notes.txt", "b.csv"):
        (tmp_path / name).touch()
    with pytest.raises(
        DataError, match=r"got a folder with b\.csv, notes\.txt; expected one of these .*voc: Annotations"
    ):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match="got a file"):
        open_dataset(tmp_path / "notes.txt")
    with pytest.raises(DataError, match="got no such path"):
        open_dataset(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="got an empty folder"):
        open_dataset(tmp_path / "empty")


def test_labels_that_repeat_are_refused() -> None:
    with pytest.raises(UsageError, match="labels must differ"):
        open_dataset("builtin", labels=["star", "star"])


def test_images_of_a_folder_have_no_boxes_and_keep_their_paths(tmp_path: Path, put_image) -> None:
    for name in ("b.png", "sub folder/a.png", "sub folder/日本.png", ".cache/x.png"):
        put_image(tmp_path / name)
    dataset = open_dataset(tmp_path, labels=["cat"])
    assert list(dataset.image_ids) == ["b.png", "sub folder/a.png", "sub folder/日本.png"]
    assert dataset.labels == ("cat",)
    assert all(item.boxes_xyxy.shape == (0, 4) for item in dataset)
    assert list(open_dataset(tmp_path, "sub folder").image_ids) == ["sub folder/a.png", "sub folder/日本.png"]
    with pytest.raises(DataError, match="has no such split; got other"):
        open_dataset(tmp_path, "other")


@pytest.mark.parametrize(("folder", "split"), [("valid", "val"), ("Val", "val"), ("Cam1", "cam1")])
def test_a_split_of_images_is_found_by_each_of_its_names(tmp_path: Path, put_image, folder, split) -> None:
    for name in (folder, "train"):
        put_image(tmp_path / name / "a.png")
    assert list(open_dataset(tmp_path, split).image_ids) == [f"{folder}/a.png"]


@pytest.mark.parametrize("inside", [True, False])
def test_images_in_a_link_to_a_folder_are_read_or_counted(tmp_path: Path, put_image, inside: bool) -> None:
    put_image(tmp_path / "root" / "a.png")
    place = tmp_path / ("root/.store" if inside else "outside")
    put_image(place / "b.png")
    (tmp_path / "root" / "link").symlink_to(place)
    (place / "again").symlink_to(tmp_path / "root")
    dataset = open_dataset(tmp_path / "root")
    assert list(dataset.image_ids) == ["a.png", "link/b.png"][: 1 + inside]
    assert dataset.summary.problems.total() == (not inside)


def test_dots_after_a_link_lead_where_the_system_leads(tmp_path: Path, put_image) -> None:
    root = tmp_path / "root"
    for path in ("root/x/a.png", "root/in/deep/c.png", "out/x/a.png", "out/d/b.png"):
        put_image(tmp_path / path)
    (root / "link").symlink_to(tmp_path / "out" / "d")
    (root / "near").symlink_to(root / "in" / "deep")
    assert relative_inside(root, root / "link" / ".." / "x" / "a.png") is None
    assert relative_inside(root, root / "near" / ".." / "deep" / "c.png") == "in/deep/c.png"
    assert relative_inside(root, root / "in" / ".." / "x" / "a.png") == "x/a.png"
    with pytest.raises(DataError, match="has no such split"):
        open_dataset(root, "link/../x")


@pytest.mark.parametrize("labels", [{}, {"classes.txt": "cat", "labels/a.txt": "0 0.5 0.5 0.5 0.5"}])
def test_a_link_to_the_whole_disk_is_counted_and_not_walked(plant, monkeypatch, labels) -> None:
    root = plant({"images/a.png": "", **labels})
    (root / "images" / "all").symlink_to("/")
    monkeypatch.setattr("os.scandir", _inside(root, os.scandir))
    dataset = open_dataset(root)
    assert list(dataset.image_ids) == ["images/a.png"]
    assert dataset.summary.examples == {"path that leaves the data set": ["all"]}


def _inside(root: Path, scandir):
    def scan(place="."):
        assert Path(place).name == "all" or Path(place).resolve().is_relative_to(root), place
        return scandir(place)

    return scan


@pytest.mark.parametrize("link", ["a", "z"])
def test_images_have_the_ids_of_the_folder_and_not_of_a_link_to_it(tmp_path: Path, put_image, link) -> None:
    put_image(tmp_path / "m" / "inner" / "a.png")
    (tmp_path / link).symlink_to(tmp_path / "m")
    (tmp_path / "m" / f"{link}2").symlink_to(tmp_path / "m" / "inner")
    assert list(open_dataset(tmp_path).image_ids) == ["m/inner/a.png"]


def test_a_link_to_a_folder_beside_the_one_of_the_split_is_followed(plant) -> None:
    root = plant({"store/a.png": "", "train/b.png": ""})
    (root / "train" / "more").symlink_to(root / "store")
    assert list(open_dataset(root, "train").image_ids) == ["train/b.png", "train/more/a.png"]


def test_a_link_out_of_a_folder_of_images_is_left_out(tmp_path: Path, put_image) -> None:
    outside = put_image(tmp_path / "outside.png")
    put_image(tmp_path / "data" / "a.png")
    (tmp_path / "data" / "b.png").symlink_to(outside)
    dataset = open_dataset(tmp_path / "data")
    assert str(dataset.summary) == "1 images, 0 boxes; left out: 1 × path that leaves the data set (b.png)"


def test_indices_are_those_of_a_list(tmp_path: Path, put_image) -> None:
    for name in ("a.png", "b.png"):
        put_image(tmp_path / name)
    dataset = open_dataset(tmp_path)
    assert dataset[-1].image_id == "b.png"
    with pytest.raises(IndexError):
        dataset[2]


def test_a_summary_names_three_files_of_each_fault(tmp_path: Path, put_image) -> None:
    for index in range(6):
        put_image(tmp_path / f"{index}.png")
    for index in range(1, 6):
        (tmp_path / f"{index}.png").write_bytes(b"not an image")
    dataset = open_dataset(tmp_path)
    assert [item.image_id for item in dataset] == ["0.png"]
    expected = "1 images, 0 boxes; left out: 5 × image that cannot be used (1.png, 2.png, 3.png)"
    assert str(dataset.summary) == expected


def test_reading_imports_no_framework(tmp_path: Path, put_image) -> None:
    put_image(tmp_path / "a.png")
    code = (
        "import sys; from edgedet.data import open_dataset; "
        f"list(open_dataset({str(tmp_path)!r})); open_dataset('builtin')[0]; "
        "heavy = {'defusedxml', 'faster_coco_eval', 'onnxruntime', 'openvino', 'torch'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
