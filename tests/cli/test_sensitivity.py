"""`edgedet sensitivity` and the budget of `edgedet export`: what they print, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
from command import Command, check_refusal

from edgedet.data.synthetic import SyntheticDataset


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two built-in images and their boxes as COCO json."""
    folder = tmp_path / "photos"
    folder.mkdir()
    dataset = SyntheticDataset("test", size=2)
    images, annotations = [], []
    for number, image in enumerate(dataset, 1):
        cv2.imwrite(str(folder / f"{number}.png"), image.image_bgr)
        images.append({"id": number, "file_name": f"{number}.png"})
        for (x1, y1, x2, y2), class_id in zip(
            image.boxes_xyxy.tolist(), image.class_ids.tolist(), strict=True
        ):
            bbox = [x1, y1, x2 - x1, y2 - y1]
            annotations.append({"image_id": number, "category_id": class_id + 1, "bbox": bbox})
    categories = [{"id": index, "name": name} for index, name in enumerate(dataset.labels, 1)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text("images = 2\n")
    return path


def test_layers_are_listed_from_the_worst_and_drawn(
    edgedet: Command, checkpoint: Path, photos: Path, recipe: Path, tmp_path: Path
) -> None:
    common = ("--calibration", photos, "--data", photos, "--recipe", recipe, "--images", 1, "--worst", 2)
    output, values = tmp_path / "plots", tmp_path / "values.json"
    result = edgedet("sensitivity", checkpoint, *common, "--output", output, "--json", values)
    assert result.code == 0, result
    report = json.loads(values.read_text())
    layers = {row["layer"]: row for row in report["layers"]}
    lines = [line.split() for line in result.stdout.splitlines()]
    printed = [words[0] for words in lines if words and words[0] in layers]
    assert len(printed) == len(layers) > 20
    worst = [min(layers[name]["snr_db"].values()) for name in printed]
    assert worst == sorted(worst)
    assert [name for name in printed if layers[name]["map_drop"] is not None] == printed[:2]
    assert report["map_images"] == 2
    assert sum(row["macs_share"] for row in report["layers"]) == pytest.approx(1)
    picture = cv2.imread(str(output / "sensitivity.png"))
    assert picture is not None
    assert picture.std() > 5


def test_a_target_that_does_not_exist_is_refused(edgedet: Command, checkpoint: Path, photos: Path) -> None:
    result = edgedet("sensitivity", checkpoint, "--calibration", photos, "--target", "onxx")
    check_refusal(result, 2, "did you mean onnx?")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--max-drop", "1%"), ("--data DIR",)),
        (("--data", "builtin"), ("--max-drop",)),
        (("--data-split", "val", "--max-drop", "1%"), ("--data DIR",)),
        (("--max-drop", "1", "--data", "builtin"), ("a % sign",)),
        (("--max-drop", "little%", "--data", "builtin"), ("a % sign",)),
        (("--max-drop=-1%", "--data", "builtin"), ("got '-1%'",)),
        (("--max-drop", "100%", "--data", "builtin"), ("percent below 100",)),
        (("--max-drop", "1%", "--data", "builtin", "--precision", "fp32"), ("fp32,int8",)),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--max") or value[0] == "--data" else "",
)
def test_a_budget_that_says_too_little_is_refused(
    edgedet: Command, checkpoint: Path, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    precision = () if "--precision" in options else ("--precision", "int8")
    common = ("--to", "onnx", "--calibration", "builtin", "--output", tmp_path / "bundle")
    result = edgedet("export", checkpoint, *common, *precision, *options)
    check_refusal(result, 2, *words)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.slow
def test_an_export_with_a_budget_says_what_it_took(
    edgedet: Command, trained: Path, photos: Path, recipe: Path, tmp_path: Path
) -> None:
    common = ("--to", "onnx", "--precision", "int8", "--recipe", recipe, "--calibration", photos)
    bundle, values = tmp_path / "bundle", tmp_path / "values.json"
    budget = ("--max-drop", "60%", "--data", photos)
    result = edgedet("export", trained, *common, *budget, "--output", bundle, "--json", values)
    assert result.code == 0, result
    assert "at least in INT8" in result.stdout
    report = json.loads(values.read_text())["budget"]
    assert report["images"] == 2
    assert report["map_after"]["onnxruntime"] >= 0.4 * report["map_float"] > 0
