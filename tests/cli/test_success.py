"""Commands that succeed: what is printed and what is written as JSON are the same values."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from command import Command, Result, check_refusal

from edgedet.bundle import open_bundle
from edgedet.data.synthetic import SyntheticDataset
from edgedet.parity import ParityReport

IMAGES = 4

Measure = Callable[..., tuple[Result, dict[str, Any]]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A COCO json of the first built-in test images, beside them."""
    dataset = SyntheticDataset("test", size=IMAGES)
    images, annotations = [], []
    for number, image in enumerate(dataset, 1):
        name = f"{number}.png"
        (tmp_path / name).write_bytes(cv2.imencode(".png", image.image_bgr)[1].tobytes())
        images.append({"id": number, "file_name": name})
        for box, class_id in zip(image.boxes_xyxy.tolist(), image.class_ids.tolist(), strict=True):
            bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            annotations.append({"image_id": number, "category_id": class_id + 1, "bbox": bbox})
    categories = [{"id": index, "name": name} for index, name in enumerate(dataset.labels, 1)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "instances.json").write_text(json.dumps(document))
    return tmp_path


@pytest.fixture
def measure(edgedet: Command, tmp_path: Path) -> Measure:
    """Runs a command once; returns what it printed and what it wrote with `--json`."""

    def run(*arguments: object) -> tuple[Result, dict[str, Any]]:
        result = edgedet(*arguments, "--json", tmp_path / "values.json")
        return result, json.loads((tmp_path / "values.json").read_text())

    return run


def cells(result: Result, first: str) -> list[str]:
    """The printed line of a table that begins with a word, by its columns."""
    (line,) = [line for line in result.stdout.splitlines() if line.split()[:1] == [first]]
    return line.split()


def points(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.2f}"


def test_evaluate_prints_what_it_writes(measure: Measure, bundle: Path, data: Path) -> None:
    result, values = measure("evaluate", bundle, "--data", data, "--runtime", "ort")
    assert result.code == 0, result.stderr
    assert result.stdout.startswith(f"ort fp32 on {IMAGES} images, {values['boxes']} boxes\n")
    keys = ("map", "map50", "voc07_map50", "voc10_map50")
    assert cells(result, "all") == ["all", str(values["boxes"]), *(points(values[key]) for key in keys)]
    for row in values["classes"]:
        keys = ("ap", "ap50", "voc07_ap50", "voc10_ap50")
        assert cells(result, row["label"])[1:] == [str(row["boxes"]), *(points(row[key]) for key in keys)]
    assert (values["runtime"], values["precision"], values["images"]) == ("ort", "fp32", IMAGES)
    assert values["data_summary"] == {
        "images": IMAGES,
        "boxes": values["boxes"],
        "lost_images": 0,
        "problems": {},
        "examples": {},
        "corrections": {},
    }


def test_parity_prints_what_it_writes(measure: Measure, bundle: Path, data: Path) -> None:
    result, values = measure("parity", bundle, "--data", data)
    assert result.code == 0, result.stdout + result.stderr
    report = ParityReport.model_validate(values)
    assert [(row.runtime, row.precision, row.passed) for row in report.rows] == [
        ("openvino", "fp32", True),
        ("ort", "fp32", True),
    ]
    assert f"{report.images} images, {report.boxes} boxes" in result.stdout
    assert f"finds {report.reference.detections} objects" in result.stdout
    for row in report.rows:
        shown = cells(result, row.runtime)
        assert shown[1:4] == [row.precision, f"{row.model_bytes / 1e6:.2f}", points(row.map)]
        assert shown[5:8] == [
            points(row.matched_fraction),
            f"{row.max_score_delta:.2g}",
            f"{row.max_box_px:.2g}",
        ]
        assert shown[-1] == "yes"
    assert (report.data_summary.images, report.data_summary.problems) == (IMAGES, {})


def test_benchmark_prints_what_it_writes(measure: Measure, bundle: Path) -> None:
    result, values = measure("benchmark", bundle, "--runtimes", "ort", "--duration", "0.1")
    assert result.code == 0, result.stderr
    (row,) = values["rows"]
    times = [row["preprocess_ms"], row["inference_ms"], row["postprocess_ms"], *row["total_ms"].values()]
    shown, cold = [line.split() for line in result.stdout.splitlines() if line.startswith("ort ")]
    assert cold[-1] == f"{row['cold_start']['total_ms']:.0f}"
    assert shown[:9] == ["ort", "fp32", "1", *(f"{ms:.2f}" for ms in times)]
    assert shown[9:11] == [f"{row['fps']:.1f}", "1.00"]
    assert all(f"note: {warning}" in result.stdout for warning in values["warnings"])


def test_inspect_prints_what_it_writes(measure: Measure, bundle: Path) -> None:
    result, values = measure("inspect", bundle)
    assert result.code == 0, result.stderr
    assert [artifact["whole"] for artifact in values["artifacts"]] == [True] * 3
    for artifact in values["artifacts"]:
        file = artifact["files"][0]
        size = sum(one["bytes"] for one in artifact["files"])
        (line,) = [line for line in result.stdout.splitlines() if file["path"] in line]
        assert line.split()[:7] == [
            *(artifact["target"], artifact["precision"], artifact["runtime"]),
            *(file["path"], str(size), file["sha256"][:12], "whole"),
        ]
    assert values["spec"] == open_bundle(bundle).spec.model_dump(mode="json")


@pytest.mark.parametrize("command", ["evaluate", "parity"])
def test_images_that_cannot_be_used_are_told_in_print_json_and_exit_code(
    measure: Measure, command: str, bundle: Path, data: Path
) -> None:
    (data / "2.png").write_bytes(b"no image")
    (data / "3.png").unlink()
    result, values = measure(command, bundle, "--data", data)
    assert result.code == 1
    assert "1 × image that cannot be used (2.png), 1 × image that is missing (3.png)" in result.stdout
    assert "2 images of" in result.stderr
    assert values["images"] == IMAGES - 2
    assert values["data_summary"]["lost_images"] == 2
    assert values["data_summary"]["problems"] == {"image that cannot be used": 1, "image that is missing": 1}


@pytest.mark.parametrize("command", ["evaluate", "parity"])
def test_harmless_faults_of_labels_are_told_and_end_with_0(
    measure: Measure, command: str, bundle: Path, data: Path
) -> None:
    document = json.loads((data / "instances.json").read_text())
    document["annotations"].append({"image_id": 1, "category_id": 1, "bbox": [1, 1, 0, 5]})
    (data / "instances.json").write_text(json.dumps(document))
    result, values = measure(command, bundle, "--data", data)
    assert result.code == 0, result.stdout + result.stderr
    assert "1 × box without area (1.png)" in result.stdout
    assert values["data_summary"]["problems"] == {"box without area": 1}


def test_evaluating_on_nothing_is_refused(edgedet: Command, bundle: Path, data: Path) -> None:
    for image in data.glob("*.png"):
        image.write_bytes(b"garbage")
    for command in ("evaluate", "parity"):
        result = edgedet(command, bundle, "--data", data)
        assert result.code == 2
        assert "there is nothing to" in result.stderr
        assert "image that cannot be used" in result.stderr


def test_evaluate_refuses_images_without_boxes(edgedet: Command, bundle: Path, data: Path) -> None:
    (data / "instances.json").write_text('{"shapes": [], "imagePath": "1.png"}')
    result = edgedet("evaluate", bundle, "--data", data, "--runtime", "ort")
    check_refusal(result, 2, "nothing to measure precision against", "LabelMe", "COCO 1.0", "edgedet detect")
