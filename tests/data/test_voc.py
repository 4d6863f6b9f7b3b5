"""VOC roots, real and broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgedet.data import open_dataset
from edgedet.errors import DataError


@pytest.fixture
def root(tmp_path: Path, put_image: Callable[..., Path], voc_xml: Callable[..., str]) -> Path:
    """A devkit of two images: a (cat and dog) and b (cat)."""
    folder = tmp_path / "räksmörgås data"
    (folder / "Annotations").mkdir(parents=True)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    for name in ("a", "b"):
        put_image(folder / "JPEGImages" / f"{name}.png")
    (folder / "Annotations" / "a.xml").write_text(voc_xml([("dog", 1, 2, 30, 40), ("cat", 5, 5, 80, 60)]))
    (folder / "Annotations" / "b.xml").write_text(voc_xml([("cat", 10.5, 10, 20, 20)]))
    (folder / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    (folder / "ImageSets" / "Main" / "val.txt").write_text("b\n")
    return folder


def test_boxes_are_the_numbers_of_the_xml(root: Path) -> None:
    dataset = open_dataset(root)
    assert dataset.format == "voc"
    assert dataset.labels == ("cat", "dog")
    assert list(dataset.image_ids) == ["JPEGImages/a.png", "JPEGImages/b.png"]
    first, second = dataset
    np.testing.assert_array_equal(first.boxes_xyxy, np.array([[1, 2, 30, 40], [5, 5, 80, 60]], np.float32))
    assert first.boxes_xyxy.dtype == np.float32
    assert first.class_ids.tolist() == [1, 0]
    np.testing.assert_array_equal(second.boxes_xyxy, [[10.5, 10, 20, 20]])
    assert str(dataset.summary) == "2 images, 3 boxes"


@pytest.mark.parametrize(
    ("split", "expected"), [("train", ["a"]), ("val", ["b"]), ("val+train", ["b", "a"]), (None, ["a", "b"])]
)
def test_a_split_names_lists_and_plus_joins_them(root: Path, split: str | None, expected: list[str]) -> None:
    dataset = open_dataset(root, split)
    assert [item.path.stem for item in dataset] == expected
    assert dataset.labels == ("cat", "dog")  # of the data set, not of the split


def test_an_unknown_split_lists_those_that_exist(root: Path) -> None:
    with pytest.raises(DataError, match="expected one of train, val"):
        open_dataset(root, "test")


def test_without_lists_a_split_is_refused_with_the_way_to_do_without(root: Path) -> None:
    for path in (root / "ImageSets" / "Main").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="has no splits; got split train") as caught:
        open_dataset(root, "train")
    assert "choose one" not in caught.value.fix
    assert 'set train = "" and evaluate = "" in [data]' in caught.value.fix


def test_lists_of_one_class_are_read_without_their_flags(root: Path, put_image, voc_xml) -> None:
    put_image(root / "JPEGImages" / "my image 1.png")
    (root / "Annotations" / "my image 1.xml").write_text(voc_xml([("cat", 1, 1, 9, 9)]))
    (root / "ImageSets" / "Main" / "cat_train.txt").write_text("\ufeffa  1\nb -1\nmy image 1\n\n", "utf-8")
    assert [item.path.stem for item in open_dataset(root, "cat_train")] == ["a", "b", "my image 1"]


def test_labels_are_imposed_and_others_are_left_out(root: Path) -> None:
    dataset = open_dataset(root, labels=["zebra", "cat"])
    assert dataset.labels == ("zebra", "cat")
    assert [item.class_ids.tolist() for item in dataset] == [[1], [1]]
    assert str(dataset.summary) == "2 images, 2 boxes; left out: 1 × box of an unknown class (a.xml)"
    assert dataset.summary.unknown_classes == {"dog": 1}


def test_a_label_file_of_the_root_gives_the_order(root: Path) -> None:
    (root / "labels.txt").write_text("dog\ncat\n")
    assert open_dataset(root).labels == ("dog", "cat")


def test_difficult_objects_are_ignored(root: Path, voc_xml) -> None:
    text = voc_xml([("cat", 1, 1, 9, 9)], extra="<difficult>1</difficult>")
    (root / "Annotations" / "a.xml").write_text(text)
    assert [item.ignore.tolist() for item in open_dataset(root)] == [[True], [False]]


def test_an_annotation_without_objects_is_background(root: Path, voc_xml) -> None:
    (root / "Annotations" / "a.xml").write_text(voc_xml())
    first, _ = open_dataset(root)
    assert first.boxes_xyxy.shape == (0, 4)


def test_boxes_are_clipped_and_those_outside_are_left_out(root: Path, voc_xml) -> None:
    boxes = [("cat", -10, -10, 900, 30), ("cat", 80, 10, 90, 20), ("cat", -9, -9, -1, -1)]
    (root / "Annotations" / "a.xml").write_text(voc_xml(boxes))
    dataset = open_dataset(root, "train")
    for _ in range(2):  # the second time counts nothing
        np.testing.assert_array_equal(dataset[0].boxes_xyxy, [[0, 0, 80, 30]])
    assert str(dataset.summary) == "1 images, 1 boxes; left out: 2 × box outside the image (JPEGImages/a.png)"


@pytest.mark.parametrize(
    ("corners", "reason"),
    [
        ((10, 10, 10, 20), "box without area"),
        ((10, "nan", 20, 20), "box that is not four finite numbers"),
        ((10, "inf", 20, 20), "box that is not four finite numbers"),
        ((10, "1e300", 20, 20), "box that is not four finite numbers"),
        ((10, "", 20, 20), "box that is not four finite numbers"),
        ((10, "ten", 20, 20), "box that is not four finite numbers"),
    ],
)
def test_boxes_that_make_no_sense_are_left_out(root: Path, voc_xml, corners, reason: str) -> None:
    (root / "Annotations" / "a.xml").write_text(voc_xml([("cat", *corners), ("cat", 1, 1, 5, 5)]))
    dataset = open_dataset(root)
    assert dataset.summary.problems == {reason: 1}
    assert [len(item.boxes_xyxy) for item in dataset] == [1, 1]
    with pytest.raises(DataError, match=reason):
        open_dataset(root, strict=True)


BOMB = """<!DOCTYPE annotation [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>
<annotation><object><name>&b;</name></object></annotation>"""
OUTSIDE = """<!DOCTYPE annotation [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<annotation><object><name>&a;</name></object></annotation>"""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<annotation>",
        "not xml",
        "<html></html>",
        BOMB,
        OUTSIDE,
    ],
)
def test_an_annotation_that_cannot_be_read_is_left_out(root: Path, text: str) -> None:
    (root / "Annotations" / "a.xml").write_text(text)
    dataset = open_dataset(root)
    assert list(dataset.image_ids) == ["JPEGImages/b.png"]
    assert str(dataset.summary) == "1 images, 1 boxes; left out: 1 × annotation that cannot be read (a.xml)"
    with pytest.raises(DataError, match=r"a\.xml has a fault"):
        open_dataset(root, strict=True)


def test_an_image_that_cannot_be_read_does_not_end_the_run(root: Path) -> None:
    (root / "JPEGImages" / "a.png").write_bytes(b"")
    dataset = open_dataset(root)
    assert len(dataset) == 2
    assert [item.path.stem for item in dataset] == ["b"]
    assert [item.path.stem for item in dataset] == ["b"]
    assert (
        str(dataset.summary)
        == "1 images, 1 boxes; left out: 1 × image that cannot be used (JPEGImages/a.png)"
    )
    with pytest.raises(DataError, match=r"a\.png"):
        dataset[0]
    with pytest.raises(DataError, match=r"a\.png"):
        list(open_dataset(root, strict=True))


def test_an_image_of_another_size_than_annotated_is_not_used(root: Path, voc_xml) -> None:
    (root / "Annotations" / "a.xml").write_text(voc_xml([("cat", 1, 1, 9, 9)], size_hw=(80, 60)))
    (root / "Annotations" / "b.xml").write_text(voc_xml([("cat", 1, 1, 9, 9)], size_hw=(0, 0)))
    dataset = open_dataset(root)
    assert [item.path.stem for item in dataset] == ["b"]
    with pytest.raises(DataError, match=r"drawn on another image; got 80x60 pixels; expected 60x80"):
        dataset[0]


def test_missing_files_are_counted_by_name(root: Path) -> None:
    (root / "JPEGImages" / "a.png").unlink()
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\nghost\nb\nb\n")
    dataset = open_dataset(root, "train")
    assert [item.path.stem for item in dataset] == ["b"]
    assert str(dataset.summary) == (
        "1 images, 1 boxes; left out: 1 × annotation without an image (a.xml), "
        "1 × image that is listed twice (b), 1 × listed image without an annotation (ghost)"
    )


def test_one_name_with_two_suffixes_is_one_image(root: Path, put_image) -> None:
    put_image(root / "JPEGImages" / "a.jpg")
    text = (root / "Annotations" / "a.xml").read_text()
    (root / "Annotations" / "a.xml").write_text(text.replace("<size>", "<filename>a.png</filename><size>"))
    dataset = open_dataset(root)
    assert list(dataset.image_ids) == ["JPEGImages/a.png", "JPEGImages/b.png"]
    assert dataset.summary.problems == {"image whose name is taken": 1}


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "..\\..\\secret"])
def test_a_list_cannot_name_files_outside(root: Path, name: str, voc_xml) -> None:
    (root.parent / "secret.xml").write_text(voc_xml([("cat", 1, 1, 9, 9)]))
    (root / "ImageSets" / "Main" / "train.txt").write_text(f"{name}\na\n")
    dataset = open_dataset(root, "train")
    assert list(dataset.image_ids) == ["JPEGImages/a.png"]
    assert sum(dataset.summary.problems.values()) == 1


def test_a_link_to_an_image_outside_is_left_out(root: Path, put_image) -> None:
    outside = put_image(root.parent / "outside.png")
    (root / "JPEGImages" / "a.png").unlink()
    (root / "JPEGImages" / "a.png").symlink_to(outside)
    dataset = open_dataset(root)
    assert list(dataset.image_ids) == ["JPEGImages/b.png"]
    assert dataset.summary.problems == {"path that leaves the data set": 1}


def test_a_link_to_itself_is_left_out(root: Path) -> None:
    (root / "JPEGImages" / "a.png").unlink()
    (root / "JPEGImages" / "a.png").symlink_to("a.png")
    dataset = open_dataset(root)
    assert list(dataset.image_ids) == ["JPEGImages/b.png"]
    assert dataset.summary.lost_images == 1


def test_a_root_that_is_itself_a_link_is_read(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    assert len(open_dataset(link)) == 2


def test_nothing_usable_is_an_error_that_says_what_was_left_out(root: Path) -> None:
    for path in (root / "JPEGImages").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="2 × annotation without an image"):
        open_dataset(root)


@pytest.mark.parametrize(
    ("split", "images", "boxes", "left_out"),
    [
        (None, 364, 4886, ["BloodImage_00338.xml", "BloodImage_00343.xml"]),
        ("train", 205, 2804, ["BloodImage_00343.xml"]),
        ("val", 87, 1137, ["BloodImage_00338.xml"]),
        ("test", 72, 945, []),
        ("train+val", 292, 3941, ["BloodImage_00343.xml", "BloodImage_00338.xml"]),
    ],
)
def test_blood_cells_are_read_whole(
    test_data: Path, split, images: int, boxes: int, left_out: list[str]
) -> None:
    dataset = open_dataset(test_data / "data" / "bccd", split)
    counts = np.zeros(3, int)
    for item in dataset:
        counts += np.bincount(item.class_ids, minlength=3)
    assert dataset.labels == ("Platelets", "RBC", "WBC")
    assert (len(dataset), dataset.summary.images, dataset.summary.boxes) == (images, images, boxes)
    assert dataset.summary.examples.get("box without area", []) == left_out
    assert set(dataset.summary.problems) <= {"box without area"}
    assert counts.sum() == boxes
    if split is None:
        assert counts.tolist() == [361, 4153, 372]  # of 4155 RBC, two have no area


@pytest.mark.parametrize(
    ("split", "images", "boxes"), [(None, 363, 670), ("train", 296, 527), ("test", 67, 143)]
)
def test_cards_are_read_from_xml_beside_images(test_data: Path, split, images: int, boxes: int) -> None:
    dataset = open_dataset(test_data / "data" / "cards", split)
    assert dataset.labels == ("ace", "jack", "king", "nine", "queen", "ten")
    assert sum(len(item.boxes_xyxy) for item in dataset) == boxes
    assert str(dataset.summary) == f"{images} images, {boxes} boxes"
