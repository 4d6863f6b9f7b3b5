"""`edgedet evaluate`: what is said of boxes and images that were not measured against."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
from command import Command, check_refusal

from edgedet.data.synthetic import SyntheticDataset


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A YOLO root of three built-in images, in which circles are called dogs."""
    dataset = SyntheticDataset("test", size=3)
    names = [name.replace("circle", "dog") for name in dataset.labels]
    root = tmp_path / "photos"
    for kind in ("images", "labels"):
        (root / kind / "test").mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(names))
    for number, image in enumerate(dataset):
        cv2.imwrite(str(root / "images" / "test" / f"{number}.png"), image.image_bgr)
        rows = ["0 0.5 0.5 0.2 0.2", *(f"{class_id} 0.3 0.3 0.2 0.2" for class_id in image.class_ids)]
        (root / "labels" / "test" / f"{number}.txt").write_text("\n".join(rows))
    return root


def test_boxes_of_classes_that_the_detector_does_not_know_are_told(
    edgedet: Command, bundle: Path, data: Path, tmp_path: Path
) -> None:
    file = tmp_path / "values.json"
    result = edgedet("evaluate", bundle, "--data", data, "--runtime", "ort", "--json", file)
    assert result.code == 0, result.stderr
    values = json.loads(file.read_text())
    left_out, known = values["left_out"], values["boxes"]
    assert (left_out["labels"], left_out["boxes"] >= 3) == (["dog"], True)
    assert result.stdout.splitlines()[1] == (
        f"{known} of {known + left_out['boxes']} boxes are of the detector's 8 classes; "
        f"{left_out['boxes']} of 1 other classes are left out: dog"
    )
    assert values["data_summary"]["boxes"] == known + left_out["boxes"]


def test_nothing_is_said_where_all_classes_are_known(edgedet: Command, bundle: Path, data: Path) -> None:
    (data / "classes.txt").write_text("\n".join(SyntheticDataset("test", size=1).labels))
    result = edgedet("evaluate", bundle, "--data", data, "--runtime", "ort")
    assert result.code == 0, result.stderr
    assert "left out" not in result.stdout


def test_a_label_file_that_cannot_be_read_ends_with_1(edgedet: Command, bundle: Path, data: Path) -> None:
    (data / "labels" / "test" / "1.txt").write_bytes(b"0 0.5 0.5 0.2 0.2 # caf\xe9")
    result = edgedet("evaluate", bundle, "--data", data, "--runtime", "ort")
    assert result.code == 1
    assert "ort fp32 on 2 images" in result.stdout
    assert "1 × label file that cannot be read (1.txt)" in result.stdout


def test_a_split_of_a_data_set_without_splits_is_refused(edgedet: Command, bundle: Path, data: Path) -> None:
    for kind in ("images", "labels"):
        for path in (data / kind / "test").iterdir():
            path.rename(data / kind / path.name)
        (data / kind / "test").rmdir()
    result = edgedet("evaluate", bundle, "--data", data, "--split", "test")
    check_refusal(result, 2, "has no splits", "leave --split out")
