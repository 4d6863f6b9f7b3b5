"""VOC data sets as annotation tools write them: folders, lists, names of images, encodings and corners."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgedet.data import open_dataset
from edgedet.errors import DataError
from edgedet.training.start import check_boxes

Plant = Callable[..., Path]

XML = (
    "<annotation>{}<object><name>cat</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>30</xmax>"
    "<ymax>40</ymax></bndbox></object></annotation>"
)
CORNERS = [10, 20, 30, 40]


def _files(*names: str) -> dict[str, str]:
    """Files with what their suffix asks for."""
    return {name: XML.format("") if name.lower().endswith(".xml") else "" for name in names}


def _check(dataset, expected: str) -> None:
    """Every image has the one box, and nothing was left out."""
    assert dataset.format == "voc"
    assert " ".join(dataset.image_ids) == expected
    assert [item.boxes_xyxy.tolist() for item in dataset] == [[CORNERS]] * len(dataset)
    assert str(dataset.summary) == f"{len(dataset)} images, {len(dataset)} boxes"


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("annotations", "images"),
        ("Annotations", "images"),
        ("Annotation", "Images"),
        ("xmls", "JPEGImages"),
        ("labels", "images"),
        ("annotations/xmls", "images"),
        ("Annotations/1/2", "JPEGImages/1/2"),
        ("Annotations", "."),
        (".", "images"),
        ("train/1", "train/1"),
        ("train/annotations", "train/images"),
        ("train/Annotations/1", "train/JPEGImages/1"),
    ],
)
def test_a_layout_is_read(plant: Plant, annotations: str, images: str) -> None:
    root = plant(_files(f"{annotations}/a.xml", f"{annotations}/b.XML", f"{images}/a.png", f"{images}/b.png"))
    prefix = "" if images == "." else f"{images}/"
    _check(open_dataset(root), f"{prefix}a.png {prefix}b.png")


NESTED = _files(*(f"Annotations/{n}/a.xml" for n in "12"), *(f"JPEGImages/{n}/a.png" for n in "12"))
FLAT = _files(*(f"Annotations/{n}.xml" for n in "abc"), *(f"JPEGImages/{n}.png" for n in "abc"))


@pytest.mark.parametrize(
    ("files", "lines", "expected"),
    [
        (NESTED, "2/a\n1/a.png\n", "JPEGImages/2/a.png JPEGImages/1/a.png"),
        (FLAT, "b.png\na.xml\nc\n", "JPEGImages/b.png JPEGImages/a.png JPEGImages/c.png"),
        (FLAT, "JPEGImages/b.png\r\nAnnotations\\a.xml\r\n", "JPEGImages/b.png JPEGImages/a.png"),
        (FLAT, "JPEGImages/b.png Annotations/b.xml\n", "JPEGImages/b.png"),
        (FLAT, "/mnt/me/JPEGImages/b.png\nb.x\n", "JPEGImages/b.png"),
        (FLAT, "c  1\na.png -1\n", "JPEGImages/c.png JPEGImages/a.png"),
    ],
)
@pytest.mark.parametrize(
    "place", ["ImageSets/Main/val.txt", "imagesets/main/valid.TXT", "ImageSets/val.txt", "val_list.txt"]
)
def test_a_list_is_read(plant: Plant, files, lines: str, expected: str, place: str) -> None:
    dataset = open_dataset(plant(files | {place: lines}), "val")
    assert " ".join(dataset.image_ids) == expected
    assert dataset.summary.problems.total() == lines.count("b.x\n")


def test_a_name_in_a_list_that_two_annotations_have_is_none(plant: Plant) -> None:
    dataset = open_dataset(plant(NESTED | {"ImageSets/Main/val.txt": "a\n1/a\n"}), "val")
    assert list(dataset.image_ids) == ["JPEGImages/1/a.png"]
    assert dataset.summary.problems == {"listed image without an annotation": 1}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cam2/a", ""),
        ("/mnt/x/cam2/a.png", ""),
        ("cam1/a", "JPEGImages/cam1/a.png"),
        ("/mnt/x/JPEGImages/cam1/a.png", "JPEGImages/cam1/a.png"),
        ("Annotations\\a.xml", "JPEGImages/a.png"),
        ("a", "JPEGImages/a.png"),
        ("cam2/b", "JPEGImages/cam1/b.png"),
    ],
)
def test_the_end_of_a_line_counts_where_one_annotation_has_it(plant: Plant, line: str, expected: str) -> None:
    names = ("a", "cam1/a", "cam1/b", "c")
    files = _files(*(f"Annotations/{n}.xml" for n in names), *(f"JPEGImages/{n}.png" for n in names))
    dataset = open_dataset(plant(files | {"ImageSets/Main/val.txt": f"c\n{line}\n"}), "val")
    assert " ".join(dataset.image_ids) == f"JPEGImages/c.png {expected}".strip()
    assert (dataset.summary.problems.total(), dataset.summary.lost_images) == (not expected, not expected)


@pytest.mark.parametrize("layout", ["Annotations/{}/a.xml JPEGImages/{}/a.png", "{}/a.xml {}/a.png"])
@pytest.mark.parametrize(("folder", "split"), [("valid", "val"), ("Val", "val"), ("cam1", "cam1")])
def test_a_folder_is_a_split(plant: Plant, layout: str, folder: str, split: str) -> None:
    root = plant(_files(*layout.format(folder, folder).split(), *layout.format("train", "train").split()))
    _check(open_dataset(root, split), layout.format(folder, folder).split()[1])
    with pytest.raises(DataError, match=f"expected one of {', '.join(sorted((folder, 'train')))}"):
        open_dataset(root, "test")


@pytest.mark.parametrize(
    "stated",
    ["photo.png", "photo", "photo.jpg", "C:\\me\\photo.png", "../x/photo.png", " photo.png\n", "PHOTO.PNG"],
)
def test_an_image_is_found_by_its_filename(plant: Plant, stated: str) -> None:
    root = plant(
        _files("Annotations/b.xml", "JPEGImages/b.png", "JPEGImages/photo.png")
        | {"Annotations/0001.xml": XML.format(f"<filename>{stated}</filename>")}
    )
    _check(open_dataset(root), "JPEGImages/photo.png JPEGImages/b.png")


def test_annotations_are_read_in_time_that_grows_with_their_number(plant: Plant, monkeypatch) -> None:
    count, compared = 300, []
    files = _files(*(f"{n}.xml" for n in range(count)), "0.png")
    root = plant(files)
    equal = Path.__eq__

    def counted(one: Path, other: object) -> bool:
        compared.append(1)
        return equal(one, other)

    monkeypatch.setattr(Path, "__eq__", counted)
    open_dataset(root)
    assert len(compared) < 100 * count


ALONE = "annotation without an image"
TAKEN = "annotation whose image is taken"
STALE = "annotation whose filename is another image, read for the image of its own name"
ELSEWHERE = "image found in another folder by its name"
B = "Annotations/b.xml JPEGImages/b.png"


@pytest.mark.parametrize(
    ("names", "stated", "expected", "counted"),
    [
        (B, "b.png", "JPEGImages/b.png", ALONE),  # a stale filename never takes the image of another xml
        ("Annotations/0.xml JPEGImages/c.png", "c.png", "JPEGImages/c.png", TAKEN),
        ("JPEGImages/a.png JPEGImages/c.png", "c.png", "JPEGImages/a.png", STALE),
        ("JPEGImages/1/a.png", "", "JPEGImages/1/a.png", ELSEWHERE),
        (f"JPEGImages/1/a.png JPEGImages/2/a.png {B}", "", "JPEGImages/b.png", ALONE),
        (f"SegmentationClass/a.png {B}", "", "JPEGImages/b.png", ALONE),
        ("JPEGImages/a.png JPEGImages/new.png", "", "JPEGImages/a.png", "image without an annotation"),
    ],
)
def test_an_image_that_is_in_doubt_is_counted(
    plant: Plant, names: str, stated: str, expected: str, counted: str
) -> None:
    text = XML.format(f"<filename>{stated}</filename>")
    files = _files(*names.split()) | {"Annotations/a.xml": text}
    dataset = open_dataset(plant(files | ({"Annotations/0.xml": text} if counted == TAKEN else {})))
    assert " ".join(dataset.image_ids) == expected
    assert dataset.summary.examples.keys() >= {counted}


@pytest.mark.parametrize(
    ("corners", "counted"),
    [((30, 40, 10, 20), 1), ((30, 20, 10, 40), 1), ((10, 40, 30, 20), 1), ((10.0, 20, 30, 40), 0)],
)
def test_swapped_corners_are_sorted_and_counted(plant: Plant, voc_xml, corners, counted: int) -> None:
    (item,) = dataset = open_dataset(plant({"a.xml": voc_xml([("cat", *corners)]), "a.png": ""}))
    assert item.boxes_xyxy.tolist() == [CORNERS]
    assert dataset.summary.corrections == ({"box with swapped corners": 1} if counted else {})


@pytest.mark.parametrize(
    ("stated", "encoding"),
    [
        ("gb2312", "gbk"),
        ("GBK", "gbk"),
        ("gb18030", "gb18030"),
        ("big5", "big5"),
        ("utf-8", "utf-8-sig"),
        ("UTF8", "utf-8"),
        ("gb2312", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("utf-16", "utf-8"),
        ("", "utf-8"),
        ("", "utf-16"),
    ],
)
def test_an_annotation_is_read_in_the_encoding_that_it_states(
    plant: Plant, stated: str, encoding: str
) -> None:
    prolog = f'<?xml version="1.0" encoding="{stated}"?>' if stated else ""
    plant({"a.xml": prolog + XML.format("").replace("cat", "中文")}, encoding)
    dataset = open_dataset(plant({"a.png": ""}), strict=True)
    assert (dataset.labels, dataset.summary.boxes) == (("中文",), 1)


@pytest.mark.parametrize(
    ("stated", "encoding", "reason"),
    [
        ("ansi-x", "utf-8", "annotation in an encoding that is not known"),
        ("base64", "ascii", "annotation in an encoding that is not known"),
        ("utf-8", "gbk", "annotation that is not in the encoding it states"),
        ("", "gbk", "annotation that is not in the encoding it states"),
    ],
)
def test_an_annotation_in_another_encoding_is_left_out(
    plant: Plant, stated: str, encoding: str, reason: str
) -> None:
    name = "cat" if encoding == "ascii" else "中文"
    text = f'<?xml version="1.0"{f" encoding={stated!r}" if stated else ""}?>' + XML.format("").replace(
        "cat", name
    )
    plant({"b.xml": text}, encoding)
    summary = open_dataset(plant(_files("a.png", "a.xml", "b.png"))).summary
    assert (summary.problems, summary.lost_images) == ({reason: 1}, 1)


def test_labels_of_yolo_with_an_xml_among_them_are_read_as_yolo(plant: Plant) -> None:
    root = plant(
        _files("images/a.png", "labels/a.xml") | {"labels/a.txt": "0 0.5 0.5 0.5 0.5", "classes.txt": "cat"}
    )
    assert open_dataset(root).format == "yolo"


@pytest.mark.parametrize(
    ("file", "text", "name"),
    [
        (
            "annotations.xml",
            '<?xml version="1.0"?>\n<annotations><version>1.1</version></annotations>',
            "CVAT",
        ),
        ("a.json", '{"version": "5.2", "shapes": [{"label": "cat"}], "imagePath": "a.png"}', "LabelMe"),
        ("via.json", '{"_via_settings": {}, "_via_img_metadata": {}}', "VGG Image Annotator"),
        ("project.json", '[{"id": 1, "annotations": [{"result": []}], "data": {}}]', "Label Studio"),
        (
            "c.json",
            '[{"image": "a.png", "annotations": [{"label": "x", "coordinates": {"x": 1}}]}]',
            "Create ML",
        ),
    ],
)
@pytest.mark.parametrize("image", ["images/a.png", "a.png", "annotations/a.png"])
def test_boxes_of_another_format_are_named_and_their_images_read_without(
    plant: Plant, file: str, text: str, name: str, image: str
) -> None:
    root = plant({file: text, image: ""})
    dataset = open_dataset(root, labels=["cat"])
    assert (dataset.format, list(dataset.image_ids)) == ("images", [image])
    assert (dataset.summary.problems.total(), dataset.summary.lost_images) == (1, 0)
    with pytest.raises(DataError, match=rf"nothing to learn from .*{name}.* not read: export it as COCO"):
        check_boxes(dataset)
    with pytest.raises(DataError, match=rf"is {name}.* not read.*export it again as COCO"):
        open_dataset(root / file)
    (root / image).unlink()
    with pytest.raises(DataError, match=rf"is {name}.* not read.*export it again as COCO"):
        open_dataset(root)
