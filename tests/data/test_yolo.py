"""YOLO roots, real and broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgedet.boxes import iou
from edgedet.data import open_dataset
from edgedet.data.yolo_yaml import read_description
from edgedet.errors import DataError
from edgedet.training.start import check_images

YAML = "path: .\ntrain: images/first\nnames:\n  0: cat\n  1: dog\n"


@pytest.fixture
def root(tmp_path: Path, put_image: Callable[..., Path]) -> Path:
    """Splits `first` (a, and b without labels) and `second` (c)."""
    folder = tmp_path / "données images"
    for split, name in (("first", "a"), ("first", "b"), ("second", "c")):
        put_image(folder / "images" / split / f"{name}.png", 100, 200)
        (folder / "labels" / split).mkdir(parents=True, exist_ok=True)
    (folder / "labels" / "first" / "a.txt").write_text("1 0.5 0.5 0.5 0.25\n0 0.1 0.1 0.2 0.2\n")
    (folder / "labels" / "second" / "c.txt").write_text("0 0.5 0.5 1 1\n")
    (folder / "data.yaml").write_text(YAML)
    return folder


def test_fractions_become_pixels_of_the_image(root: Path) -> None:
    dataset = open_dataset(root, "first")
    assert dataset.format == "yolo"
    assert dataset.labels == ("cat", "dog")
    first, second = dataset
    np.testing.assert_allclose(first.boxes_xyxy, [[50, 37.5, 150, 62.5], [0, 0, 40, 20]], atol=1e-4)
    assert first.class_ids.tolist() == [1, 0]
    assert second.boxes_xyxy.shape == (0, 4)
    assert str(dataset.summary) == "2 images, 2 boxes"


@pytest.mark.parametrize(
    ("split", "names"),
    [("first", "ab"), ("train", "ab"), ("second", "c"), ("second+first", "cab"), (None, "abc")],
)
def test_a_split_is_a_folder_or_a_key_of_the_yaml(root: Path, split: str | None, names: str) -> None:
    assert "".join(item.path.stem for item in open_dataset(root, split)) == names


def test_the_yaml_itself_can_be_opened(root: Path) -> None:
    assert len(open_dataset(root / "data.yaml", "train")) == 2


def test_folders_of_splits_with_images_and_labels_inside_are_read(tmp_path: Path, put_image) -> None:
    put_image(tmp_path / "train" / "images" / "a.png")
    (tmp_path / "train" / "labels").mkdir()
    (tmp_path / "train" / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "data.yaml").write_text("train: ../train/images\nnames: ['cat']\n")
    (item,) = open_dataset(tmp_path, "train")
    np.testing.assert_allclose(item.boxes_xyxy, [[20, 15, 60, 45]])


def test_images_without_split_folders_are_read(tmp_path: Path, put_image) -> None:
    put_image(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("1 0.5 0.5 0.5 0.5")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (item,) = open_dataset(tmp_path)
    assert item.class_ids.tolist() == [1]


def test_an_unknown_split_lists_those_that_exist(root: Path) -> None:
    with pytest.raises(
        DataError, match=r"got third; expected one of first, second, train\. Fix: .*join several"
    ):
        open_dataset(root, "third")


def test_a_split_that_is_listed_can_be_opened(root: Path, put_image) -> None:
    put_image(root / "third" / "images" / "d.png")
    (root / "third" / "labels").mkdir()
    with pytest.raises(DataError, match="expected one of first, second, third, train") as caught:
        open_dataset(root, "nope")
    for split in caught.value.expected.removeprefix("one of ").split(", "):
        assert len(open_dataset(root, split)) > 0


def test_without_split_folders_a_split_is_refused_with_the_way_to_do_without(
    tmp_path: Path, put_image
) -> None:
    put_image(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(
        DataError, match=r'has no splits; got split train; .*set train = "" and evaluate = ""'
    ):
        open_dataset(tmp_path, "train")


@pytest.mark.parametrize("split", ["..", "../../etc", "/etc"])
def test_a_split_cannot_leave_the_root(root: Path, split: str) -> None:
    with pytest.raises(DataError, match="split"):
        open_dataset(root, split)


def test_polygons_become_the_box_around_them(root: Path) -> None:
    (root / "labels" / "second" / "c.txt").write_text("0 0.1 0.2 0.5 0.1 0.3 0.8\n")
    (item,) = open_dataset(root, "second")
    np.testing.assert_allclose(item.boxes_xyxy, [[20, 10, 100, 80]], atol=1e-4)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("0 0.5 0.5 0.2", "row that cannot be read"),
        ("cat 0.5 0.5 0.2 0.2", "row that cannot be read"),
        ("0.5 0.5 0.5 0.2 0.2", "row that cannot be read"),
        ("-1 0.5 0.5 0.2 0.2", "row that cannot be read"),
        ("nan 0.5 0.5 0.2 0.2", "row that cannot be read"),
        ("inf 0.5 0.5 0.2 0.2", "row that cannot be read"),
        ("0 nan 0.5 0.2 0.2", "box that is not four finite numbers"),
        ("0 inf 0.5 0.2 0.2", "box that is not four finite numbers"),
        ("0 0.5 0.5 0 0.2", "box without area"),
        ("0 0.5 0.5 -0.2 0.2", "box without area"),
        ("2 0.5 0.5 0.2 0.2", "box of an unknown class"),
    ],
)
def test_rows_that_make_no_sense_are_left_out(root: Path, row: str, reason: str) -> None:
    (root / "labels" / "second" / "c.txt").write_text(f"{row}\n\n1 0.5 0.5 0.2 0.2\n")
    dataset = open_dataset(root, "second")
    assert str(dataset.summary) == f"1 images, 1 boxes; left out: 1 × {reason} (c.txt)"
    with pytest.raises(DataError, match=reason):
        open_dataset(root, "second", strict=True)


def test_boxes_outside_the_image_are_left_out_when_it_is_read(root: Path) -> None:
    (root / "labels" / "second" / "c.txt").write_text("0 340 200 50 60\n1 1.0 0.5 0.5 0.5\n")
    dataset = open_dataset(root, "second")
    (item,) = dataset
    np.testing.assert_allclose(item.boxes_xyxy, [[150, 25, 200, 75]], atol=1e-4)
    assert dataset.summary.problems == {"box outside the image": 1}


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00\xd8", "0 0.5 0.5 1 1 # \xe9t\xe9".encode("latin-1"), None]
)
def test_an_image_whose_label_file_cannot_be_read_is_lost_and_no_background(
    root: Path, content: bytes | None
) -> None:
    labels = root / "labels" / "first" / "b.txt"
    labels.mkdir() if content is None else labels.write_bytes(content)
    dataset = open_dataset(root, "first")
    assert [item.path.stem for item in dataset] == ["a"]
    assert dataset.summary.problems == {"label file that cannot be read": 1}
    assert dataset.summary.lost_images == 1
    with pytest.raises(DataError, match="label file that cannot be read"):
        open_dataset(root, "first", strict=True)


def test_nothing_but_label_files_that_cannot_be_read_is_an_error(root: Path) -> None:
    (root / "labels" / "second" / "c.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"no usable image.*1 × label file that cannot be read \(c\.txt\)"):
        open_dataset(root, "second")


def test_a_label_file_without_an_image_is_counted(root: Path) -> None:
    (root / "labels" / "second" / "d.txt").write_text("0 0.5 0.5 1 1\n")
    dataset = open_dataset(root, "second")
    assert str(dataset.summary) == "1 images, 1 boxes; left out: 1 × label file without an image (d.txt)"


def test_some_images_beside_all_labels_are_no_lost_images(root: Path) -> None:
    for number in range(9):
        (root / "labels" / "second" / f"{number}.txt").write_text("0 0.5 0.5 1 1\n")
    dataset = open_dataset(root, "second")
    assert dataset.summary.problems == {"label file without an image": 9}
    assert dataset.summary.lost_images == 0
    check_images(dataset)


def test_two_images_with_one_label_file_are_one_image(root: Path, put_image) -> None:
    put_image(root / "images" / "second" / "c.jpg", 100, 200)
    dataset = open_dataset(root, "second")
    assert list(dataset.image_ids) == ["images/second/c.jpg"]
    assert dataset.summary.problems == {"image whose name is taken": 1}


def test_labels_are_imposed_by_name(root: Path) -> None:
    dataset = open_dataset(root, labels=["dog", "cow"])
    assert [item.class_ids.tolist() for item in dataset] == [[0], [], []]
    assert dataset.summary.problems == {"box of an unknown class": 2}
    assert dataset.summary.unknown_classes == {"cat": 2}


def test_a_root_without_names_needs_labels(root: Path) -> None:
    (root / "data.yaml").unlink()
    with pytest.raises(DataError, match="has no class names"):
        open_dataset(root)
    assert open_dataset(root, labels=["cat", "dog"]).labels == ("cat", "dog")


@pytest.mark.parametrize(
    "names",
    [
        "names:\n  0: cat\n  1: hot dog\n  2: it's # here\n",
        "names:  # three\n\n  # the first\n  2: \"it's\"\n  1: 'hot dog'\n  0: cat # a comment\n",
        "names:\n- cat\n- hot dog\n- 'it''s'\n",
        'names:\n  - cat\n  - "hot dog"\n  - it\'s\nnc: 3\n',
        "names: [cat, 'hot dog', \"it's\"]\n",
        "names: ['cat',\n        'hot dog',\n  'it''s', ]  \n",
        "names: {0: cat, 1: hot dog, 2: it's}\n",
        "nc: 3\nnames: [cat, hot dog, it's]  # all\n",
        "---\nnames:\r\n  0: cat\r\n  1: hot dog\r\n  2: it's\r\n",
    ],
)
def test_names_are_read_in_every_usual_way(tmp_path: Path, names: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(names)
    assert read_description(file).names == ("cat", "hot dog", "it's")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("caf\\xE9", "café"),
        ("\\u732B \\U0001F408", "猫 🐈"),
        ("\\uD83D\\uDC08", "🐈"),
        ("a\\tb\\nc\\0", "a\tb\nc\0"),
        ('\\"a\\" \\\\ \\/', '"a" \\ /'),
        ("\\\\xE9", "\\xE9"),
        ("\\_\\N\\e", "\xa0\x85\x1b"),
    ],
)
@pytest.mark.parametrize("form", ['names:\n  0: "{}"\n', 'names: ["{}"]\n', 'names: {{0: "{}"}}\n'])
def test_escapes_in_double_quotes_are_those_of_yaml(tmp_path: Path, written: str, name: str, form) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(form.format(written))
    assert read_description(file).names == (name,)


@pytest.mark.parametrize("written", ["\\d", "\\xG1", "\\u12", "\\U00110000", "\\uD83D", "\\ "])
@pytest.mark.parametrize(
    "form", ['names: ["a{}"]\n', 'names: [a]\nval: "C:{}"\n', 'names: [a]\npath: "{}"\n']
)
def test_an_escape_that_yaml_does_not_have_is_refused_by_name(tmp_path: Path, written: str, form) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(form.format(written))
    with pytest.raises(DataError, match=r"cannot read the text in double quotes in .*got \\" + written[1]):
        read_description(file)


@pytest.mark.parametrize(
    "names",
    [
        "names:\n  0: cat\n  2: dog\n",
        "names:\n  0: cat\n  0: dog\n",
        "names:\n  - cat\n  - cat\n",
        "names:\n  - cat\n  - ''\n",
        "names: &anchor\n  - cat\n",
        "names: !!python/object:os.system [cat]\n",
        "names: [cat, [dog]]\n",
        "names: [cat\n",
        "names:\n  cat: 0\n",
        "names: |\n  cat\n",
        "names: {cat, dog}\n",
        "names: [0: cat]\n",
        "names: {0: cat, 0: dog}\n",
        "names: ['cat' 'dog']\n",
    ],
)
def test_names_in_another_way_are_refused(tmp_path: Path, names: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(names)
    with pytest.raises(DataError, match="cannot read the names in"):
        read_description(file)


@pytest.mark.parametrize(
    ("split", "images", "boxes", "orphans"),
    [
        (None, 256, 1827, ["000000000656.txt", "000000000659.txt"]),
        ("train2017", 128, 929, ["000000000656.txt", "000000000659.txt"]),
        ("train", 128, 929, ["000000000656.txt", "000000000659.txt"]),
        ("val2017", 128, 898, []),
    ],
)
def test_coco128_is_read_whole(test_data: Path, split, images: int, boxes: int, orphans: list[str]) -> None:
    dataset = open_dataset(test_data / "data" / "coco128", split)
    items = list(dataset)
    assert (len(items), sum(len(item.boxes_xyxy) for item in items)) == (images, boxes)
    assert (dataset.summary.images, dataset.summary.boxes) == (images, boxes)
    assert len(dataset.labels) == 80
    assert dataset.summary.examples == ({"label file without an image": orphans} if orphans else {})


def test_coco128_has_the_same_boxes_in_both_formats(test_data: Path) -> None:
    root = test_data / "data" / "coco128"
    coco = {item.image_id: item for item in open_dataset(root / "annotations" / "instances_train2017.json")}
    for item in open_dataset(root, "train2017"):
        other = coco[item.image_id]
        expected, expected_ids = other.boxes_xyxy[~other.ignore], other.class_ids[~other.ignore]
        assert len(item.boxes_xyxy) == len(expected)
        if len(expected):
            alike = iou(item.boxes_xyxy, expected) * (item.class_ids[:, None] == expected_ids)
            assert alike.max(axis=1).min() > 0.98
            assert alike.max(axis=0).min() > 0.98
