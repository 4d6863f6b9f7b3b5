"""Calibrate once, export again later: `--calibration` takes the file that an export wrote."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from command import Command, check_refusal

from edgedet.bundle import open_bundle
from edgedet.data import open_dataset
from edgedet_calibration.calibrate import calibrate
from edgedet_calibration.correction import with_corrections
from edgedet_calibration.encodings import ENCODINGS
from edgedet_calibration.images import CalibrationImages
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.weight_steps import packed
from edgedet_export import exporter, verify

RECIPE = Recipe(images=4)


@pytest.fixture(scope="module", autouse=True)
def capture_once() -> Iterator[None]:
    """The commands of this module see one captured detector, which none of them changes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "captured_checkpoint", cache(exporter.captured_checkpoint))
        yield


@pytest.fixture(scope="module")
def collected(checkpoint: Path) -> dict[str, Any]:
    """What four images show the small detector, with the corrections of ONNX Runtime and TFLite."""
    captured = exporter.captured_checkpoint(checkpoint, None)
    images = CalibrationImages(open_dataset("builtin", split="val"), captured.spec.input, RECIPE.images)
    stats = calibrate(captured, images, RECIPE)
    stats = with_corrections(captured, stats, RECIPE, [ENCODINGS["onnxruntime"]], images)
    return stats.model_dump(mode="json")


@pytest.fixture
def refused(edgedet: Command, checkpoint: Path, collected: dict[str, Any], tmp_path: Path) -> Any:
    """Exports with a changed calibration; checks that it is refused before anything is written."""

    def run(change: dict[str, Any], *words: str, to: str = "onnx", recipe: str | None = None) -> None:
        path = tmp_path / "calibration.json"
        path.write_text(json.dumps(collected | change))
        command = ["export", checkpoint, "--output", tmp_path / "bundle", "--to", to, "--precision", "int8"]
        if recipe is not None:
            (tmp_path / "recipe.toml").write_text(recipe)
            command += ["--recipe", tmp_path / "recipe.toml"]
        check_refusal(edgedet(*command, "--calibration", path), 2, *words)
        assert not (tmp_path / "bundle").exists()

    return run


def test_an_export_from_a_calibration_file_needs_no_images_and_says_what_they_showed(
    edgedet: Command,
    checkpoint: Path,
    collected: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verify, "MIN_SNR_DB", {})  # fresh weights, whose noise says nothing
    path, bundle = tmp_path / "calibration.json", tmp_path / "bundle"
    path.write_text(json.dumps(collected))
    command = ["export", checkpoint, "--to", "onnx", "--precision", "int8", "--calibration", path]
    result = edgedet(*command, "--output", bundle, "--json", tmp_path / "values.json")
    assert result.code == 0, result
    values = json.loads((tmp_path / "values.json").read_text())
    assert values["coverage"] == collected["coverage"]
    counts = ", ".join(f"{label} {n}" for label, n in values["coverage"]["classes"].items())
    boxes = values["coverage"]["boxes"]
    assert f"calibrated on 4 images, {boxes} boxes: {counts} (from {path})\n" in result.stdout
    assert "edgedet: calibrated on 4 images: with fewer than 16" in result.stderr
    assert json.loads((bundle / "calibration.json").read_text()) == collected
    assert open_bundle(bundle).artifact("ort", "int8").quantization is not None


def test_an_export_names_the_calibration_images_that_it_cannot_read(
    edgedet: Command, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "MIN_SNR_DB", {})
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(islice(open_dataset("builtin", split="val"), 4)):
        cv2.imwrite(str(folder / f"{number}.png"), image.image_bgr)
    (folder / "torn.png").write_bytes((folder / "0.png").read_bytes()[:200])
    command = ["export", checkpoint, "--to", "onnx", "--precision", "int8", "--calibration", folder]
    result = edgedet(*command, "--output", tmp_path / "bundle")
    assert result.code == 0, result
    assert "edgedet: left out of --calibration: 1 × " in result.stderr
    assert "torn.png" in result.stderr


@pytest.mark.slow
def test_an_export_from_a_calibration_file_is_that_from_its_images(
    edgedet: Command, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "MIN_SNR_DB", {})  # fresh weights, whose noise says nothing
    (tmp_path / "recipe.toml").write_text(RECIPE.to_toml())
    first, again = tmp_path / "first", tmp_path / "again"
    command = [
        "export",
        checkpoint,
        "--to",
        "onnx",
        "--precision",
        "int8",
        "--recipe",
        tmp_path / "recipe.toml",
    ]
    images = ["--calibration", "builtin", "--split", "val"]
    result = edgedet(*command, *images, "--output", first, "--json", tmp_path / "first.json")
    assert result.code == 0, result
    values = json.loads((tmp_path / "first.json").read_text())
    coverage = values["coverage"]
    counts = ", ".join(f"{label} {count}" for label, count in coverage["classes"].items())
    assert f"calibrated on 4 images, {coverage['boxes']} boxes: {counts}\n" in result.stdout
    assert coverage["boxes"] == sum(coverage["classes"].values()) > 0
    assert list(coverage["classes"]) == list(open_bundle(first).spec.labels)
    assert "calibrated on 4 images: with fewer than 16" in values["warnings"][0]
    assert all(f"edgedet: {warning}" in result.stderr for warning in values["warnings"])
    stored = json.loads((first / "calibration.json").read_text())
    assert stored["coverage"] == coverage
    assert len(stored["images"]) == 4

    reused = edgedet(*command, "--calibration", first / "calibration.json", "--output", again)
    assert reused.code == 0, reused
    assert f"boxes: {counts} (from {first / 'calibration.json'})\n" in reused.stdout
    for name in ("int8/model.onnx", "calibration.json", "recipe.toml"):
        assert (first / name).read_bytes() == (again / name).read_bytes(), name


def test_a_calibration_of_another_checkpoint_preprocessing_or_graph_is_refused_by_name(
    refused: Any, collected: dict[str, Any]
) -> None:
    refused({"checkpoint_sha256": "0" * 64}, "its checkpoint is not this detector's", "got 000000000000")
    other = {"input": collected["input"] | {"resize": "letterbox"}}
    refused(other, "its preprocessing (resize) is not", "got letterbox", "expected stretch")
    first, *rest = collected["tensors"]
    refused({"tensors": {name: collected["tensors"][name] for name in rest}}, f"got without {first}")


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ('observer = "minmax"', ("recipe (observer)", "got percentile", "expected minmax")),
        ("percentile = 99.9", ("recipe (percentile)", "got 99.99", "expected 99.9")),
        ('weights = "per_tensor"', ("recipe (weights)", "got per_channel", "expected per_tensor")),
        ('rounding = "nearest"', ("recipe (rounding)", "got least_squares", "expected nearest")),
        ("bias_correction = false", ("recipe (bias_correction)", "got True", "expected False")),
        ("pair_safe = false", ("recipe (pair_safe)", "got True", "expected False")),
        ('float_layers = ["conv2d"]', ("recipe (float_layers)", "got ()", "expected ('conv2d',)")),
    ],
)
def test_corrections_of_another_recipe_are_refused_by_what_differs(
    refused: Any, recipe: str, words: tuple[str, ...]
) -> None:
    refused({}, *words, "bias_correction = false", recipe=recipe)


def test_corrections_of_a_version_without_pair_safe_weights_are_refused_with_what_takes_them(
    refused: Any, collected: dict[str, Any]
) -> None:
    origin = {k: v for k, v in collected["correction_origin"].items() if k != "pair_safe"}
    words = ("recipe (pair_safe)", "got False", "expected True", "with pair_safe = false added")
    refused({"correction_origin": origin}, *words)


def test_channel_factors_that_do_not_fit_are_refused(refused: Any) -> None:
    words = ("recipe (equalization)", "got equalization = true", "expected equalization = false")
    refused({}, *words, recipe="equalization = false")
    refused({"equalization": False, "channel_factors": {}}, "recipe (equalization)")
    refused(
        {"channel_factors": {"conv2d": [2.0]}}, "channel factors are not this detector's", "got 1 factors"
    )
    refused({"channel_factors": {"conv2d": [0.0]}}, "cannot read the calibration", "greater than 0")


def test_corrections_that_are_missing_are_refused_and_never_left_out(
    refused: Any, collected: dict[str, Any]
) -> None:
    refused({}, "no corrections for affine fused", "got those for affine lowered", to="onnx,openvino")
    refused({"corrections": {}, "correction_origin": None}, "no corrections for affine lowered", "got none")
    refused({"correction_origin": None}, "corrections without correction_origin")


def test_corrections_that_do_not_fit_are_refused(refused: Any, collected: dict[str, Any]) -> None:
    (corrections,) = collected["corrections"].values()
    shifts, steps = corrections["bias_shifts"], corrections["weight_steps"]
    name = next(iter(shifts))
    count_of = {name: 16 * 3 * 3 * 3}

    def changed(**change: Any) -> dict[str, Any]:
        return {"corrections": {"affine lowered": corrections | change}}

    without = {one: found for one, found in shifts.items() if one != name}
    refused(changed(bias_shifts=without), f"bias shifts of the calibration do not fit {name}", "got none")
    short = shifts | {name: shifts[name][:-1]}
    refused(changed(bias_shifts=short), f"do not fit {name}", f"got {len(shifts[name]) - 1} of them")
    without = {one: found for one, found in steps.items() if one != name}
    refused(changed(weight_steps=without), f"weight steps of the calibration do not fit {name}")
    for count, words in ((5, "got 5 of them"), (10**6, "got more than that")):
        wrong = steps | {name: packed(torch.zeros(count, dtype=torch.int8))}
        refused(changed(weight_steps=wrong), f"do not fit {name}", words)
    cut = base64.b64encode(base64.b64decode(steps[name])[:-2]).decode()
    for text, words in (("AAAA", "decompressing"), ("é", "ASCII"), (cut, "cut or continued")):
        refused(changed(weight_steps=steps | {name: text}), f"do not fit {name}", words)
    beyond = steps | {name: packed(torch.full((count_of[name],), 127, dtype=torch.int8))}
    refused(changed(weight_steps=beyond), f"do not fit {name}", "beyond 127")


def test_a_calibration_file_that_is_damaged_or_split_is_refused(
    edgedet: Command, checkpoint: Path, collected: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "calibration.json"
    command = ["export", checkpoint, "--output", tmp_path / "b", "--precision", "int8", "--calibration", path]
    path.write_text(json.dumps(collected)[:-9])
    check_refusal(edgedet(*command), 2, f"cannot read the calibration in {path}", "calibrate again")
    path.write_text(json.dumps(collected))
    check_refusal(edgedet(*command, "--split", "val"), 2, "has no splits", "leave --split out")
