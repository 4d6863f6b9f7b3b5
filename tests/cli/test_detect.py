"""`edgedet detect` over good and bad images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from command import Command, check_refusal

from edgedet.data import open_dataset


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Drawn images, two of one name in two folders, one with a space and letters beyond ASCII in its name."""
    dataset = open_dataset("builtin", "test")
    for index, name in enumerate(("a.jpg", "sub/a.jpg", "größe 1.png")):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, dataset[index].image_bgr)[1].tobytes())
    return tmp_path / "pictures"


def test_a_folder_is_searched_and_every_image_gets_a_table(
    edgedet: Command, bundle: Path, pictures: Path
) -> None:
    result = edgedet("detect", bundle, pictures, "--score-threshold", "0.0")
    assert result.code == 0
    assert result.notices == ""
    for name in ("a.jpg", "sub/a.jpg", "größe 1.png"):
        assert f"{pictures / name}: 100 objects, ort fp32" in result.stdout


def test_the_json_holds_boxes_inside_the_image_with_labels_and_scores(
    edgedet: Command, bundle: Path, pictures: Path
) -> None:
    result = edgedet("detect", bundle, pictures / "a.jpg", "--json", "-")
    (image,) = result.json["images"]
    height, width = cv2.imread(str(pictures / "a.jpg")).shape[:2]
    assert (result.json["runtime"], result.json["precision"]) == ("ort", "fp32")
    assert image["path"] == str(pictures / "a.jpg")
    assert image["detections"]
    for found in image["detections"]:
        x1, y1, x2, y2 = found["box_xyxy"]
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert 0.1 < found["score"] <= 1


def test_a_lone_artifact_detects_what_its_bundle_does(edgedet: Command, bundle: Path, pictures: Path) -> None:
    whole = edgedet("detect", bundle, pictures, "--runtime", "openvino", "--json", "-").json
    lone = edgedet("detect", bundle / "fp32" / "model.xml", pictures, "--json", "-").json
    assert lone == whole
    assert lone["runtime"] == "openvino"


def test_pictures_are_written_one_for_each_image_even_of_one_name(
    edgedet: Command, bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    assert edgedet("detect", bundle, pictures, "--save", tmp_path / "out").code == 0
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["a-2.jpg", "a.jpg", "größe 1.jpg"]
    original = cv2.imread(str(pictures / "a.jpg"))
    drawn = cv2.imread(str(tmp_path / "out" / "a.jpg"))
    assert drawn.shape == original.shape
    assert np.abs(drawn.astype(int) - original).max() > 60


def test_one_bad_image_is_named_and_the_run_goes_on(
    edgedet: Command, bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "cut.jpg").write_bytes((pictures / "a.jpg").read_bytes()[:500])
    result = edgedet("detect", bundle, pictures, "--json", "-")
    by_name = {Path(image["path"]).name: image for image in result.json["images"]}
    assert result.code == 1
    assert len(result.json["images"]) == 4
    assert "cut.jpg" in by_name["cut.jpg"]["error"]
    assert "cut.jpg" in result.stderr
    assert "detections" in by_name["a.jpg"]


def test_the_exit_code_is_2_when_no_image_can_be_read(edgedet: Command, bundle: Path, tmp_path: Path) -> None:
    check_refusal(edgedet("detect", bundle, tmp_path / "missing.jpg"), 2, "missing.jpg", "no such file")


def test_strict_stops_at_the_first_bad_image(edgedet: Command, bundle: Path, pictures: Path) -> None:
    (pictures / "0.jpg").write_bytes(b"")
    result = edgedet("detect", bundle, pictures, "--strict")
    check_refusal(result, 2, "0.jpg")
    assert "objects" not in result.stdout


def test_a_folder_without_images_is_refused(edgedet: Command, bundle: Path, tmp_path: Path) -> None:
    check_refusal(edgedet("detect", bundle, tmp_path), 2, "without images")


def test_real_photographs_go_through(edgedet: Command, bundle: Path, test_data: Path) -> None:
    images = sorted((test_data / "data" / "bccd" / "JPEGImages").glob("*.jpg"))[:3]
    assert images, "the data set has no images"
    result = edgedet("detect", bundle, *images, "--json", "-")
    assert result.code == 0
    assert [image["path"] for image in result.json["images"]] == [str(path) for path in images]


def test_pictures_do_not_take_the_place_of_the_images(
    edgedet: Command, bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in pictures.rglob("*.*")}
    (tmp_path / "link").symlink_to(pictures)
    (tmp_path / "linked.jpg").symlink_to(pictures / "a.jpg")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "linked.jpg").symlink_to(pictures / "a.jpg")
    for images, folder in (
        ((pictures,), pictures),
        ((pictures / "a.jpg",), tmp_path / "link"),
        ((tmp_path / "link" / "a.jpg",), pictures),
        ((tmp_path / "linked.jpg",), pictures),
        ((tmp_path / "linked.jpg",), tmp_path),
        ((pictures / "a.jpg",), tmp_path / "out"),
        ((pictures / "größe 1.png", pictures / "sub" / "a.jpg"), pictures / "sub"),
    ):
        result = edgedet("detect", bundle, *images, "--save", folder)
        check_refusal(result, 2, f"cannot save pictures in {folder}", "name another folder")
        assert result.stdout == ""
    assert {path: path.read_bytes() for path in pictures.rglob("*.*")} == before


@pytest.mark.parametrize("folder", ["/proc/out", "file"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_model_is_opened(
    edgedet: Command, pictures: Path, tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    result = edgedet("detect", "no bundle", pictures, "--save", folder)
    check_refusal(result, 2, "cannot write", folder)
    assert "no bundle" not in result.stderr


def test_an_image_without_objects_has_one_line_and_one_object_is_one(
    edgedet: Command, bundle: Path, pictures: Path
) -> None:
    none = edgedet("detect", bundle, pictures / "a.jpg", "--score-threshold", "1")
    assert none.stdout == f"{pictures / 'a.jpg'}: 0 objects, ort fp32\n"
    found = edgedet("detect", bundle, pictures / "a.jpg", "--score-threshold", "0", "--json", "-").json
    scores = sorted((each["score"] for each in found["images"][0]["detections"]), reverse=True)
    between = (scores[0] + scores[1]) / 2
    one = edgedet("detect", bundle, pictures / "a.jpg", "--score-threshold", str(between))
    assert one.stdout.startswith(f"{pictures / 'a.jpg'}: 1 object, ort fp32\nlabel")


def test_a_precision_may_be_written_in_capitals(edgedet: Command, bundle: Path, pictures: Path) -> None:
    result = edgedet("detect", bundle, pictures / "a.jpg", "--precision", "FP32", "--json", "-")
    assert result.json["precision"] == "fp32"
