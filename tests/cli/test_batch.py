"""Commands beside bundles with artifacts for several images at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Command, check_refusal

from edgedet.bundle import Bundle
from edgedet.data.synthetic import SyntheticDataset

SHORT = ("--runtimes", "ort", "--duration", "0.2", "--batch", "1,2")


def test_a_sweep_prints_a_row_for_each_batch_with_its_gain(
    edgedet: Command, batched_bundle: Bundle, tmp_path: Path
) -> None:
    result = edgedet("benchmark", batched_bundle.root, *SHORT, "--json", tmp_path / "values.json")
    assert result.code == 0, result.stderr
    rows = json.loads((tmp_path / "values.json").read_text())["rows"]
    assert [(row["precision"], row["batch"]) for row in rows] == [
        ("fp32", 1),
        ("fp32", 2),
        ("int8", 1),
        ("int8", 2),
    ]
    head = next(line for line in result.stdout.splitlines() if line.startswith("runtime"))
    assert "threads  batch" in head
    assert "x batch 1" in head
    assert f"{rows[1]['gain_over_batch_1']:.2f}" in result.stdout
    assert "ort batch 2" in result.stdout, "cold starts name the batch"
    compared = edgedet("benchmark", "--compare").stdout
    assert "ort int8 batch 2, 1 thread" in compared
    assert "in a quick run" in compared


def test_without_a_sweep_there_is_no_word_of_batches(edgedet: Command, batched_bundle: Bundle) -> None:
    result = edgedet("benchmark", batched_bundle.root, *SHORT[:-2])
    assert result.code == 0, result.stderr
    assert "batch" not in result.stdout


@pytest.mark.parametrize("text", ["", "0", "257", "1,x", "-1"])
@pytest.mark.parametrize("command", ["benchmark", "export"])
def test_a_batch_that_cannot_be_is_refused(
    edgedet: Command, bundle: Path, tmp_path: Path, command: str, text: str
) -> None:
    rest = ("--output", tmp_path / "b") if command == "export" else ()
    check_refusal(edgedet(command, bundle, "--batch", text, *rest), 2, "cannot read --batch", "1 to 256")


def test_a_batch_that_the_bundle_lacks_is_refused_with_those_it_has(edgedet: Command, bundle: Path) -> None:
    result = edgedet("benchmark", bundle, "--batch", "1,4")
    check_refusal(result, 2, "no artifact for that batch", "got 4", "--batch 1,4")


def test_an_export_without_one_image_is_refused(edgedet: Command, checkpoint: Path, tmp_path: Path) -> None:
    result = edgedet("export", checkpoint, "--to", "onnx", "--batch", "2", "--output", tmp_path / "b")
    check_refusal(result, 2, "cannot export these batches", "--batch 1,2")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("command", ["detect", "evaluate", "parity"])
def test_commands_of_one_image_refuse_a_lone_file_of_two(
    edgedet: Command, batched_bundle: Bundle, command: str
) -> None:
    path = batched_bundle.root / "fp32" / "batch2" / "model.onnx"
    image = Path(__file__).parents[2] / "docs" / "detections.jpg"
    rest = (image,) if command == "detect" else ("--data", "builtin")
    said = "not a bundle" if command == "parity" else "got an artifact for a batch of 2"
    check_refusal(edgedet(command, path, *rest), 2, said)


def test_commands_of_one_image_do_not_see_the_others_of_a_bundle(
    edgedet: Command, batched_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    images = SyntheticDataset("test", size=3)
    monkeypatch.setattr("edgedet.cli.parity.open_dataset", lambda *_: images)
    file = tmp_path / "values.json"
    edgedet("parity", batched_bundle.root, "--data", "builtin", "--runtimes", "ort", "--json", file)
    assert [row["precision"] for row in json.loads(file.read_text())["rows"]] == ["fp32", "int8"]
    edgedet("inspect", batched_bundle.root, "--executed", "--runtimes", "ort", "--json", file)
    assert [one["precision"] for one in json.loads(file.read_text())["artifacts"]] == ["fp32", "int8"]
    edgedet("inspect", batched_bundle.root, "--quantization", "--runtimes", "ort", "--json", file)
    values = json.loads(file.read_text())
    assert len(values["quantization"]) == 1, "scales are the same for every batch"
    assert sum(artifact["batch"] == 2 for artifact in values["artifacts"]) == 4


def test_inspecting_a_lone_file_says_for_how_many_images_it_is(
    edgedet: Command, batched_bundle: Bundle
) -> None:
    path = batched_bundle.root / "int8" / "batch2" / "model.onnx"
    result = edgedet("inspect", path)
    assert result.code == 0, result.stderr
    assert "images, 2 images of 256x256" in result.stdout
    assert "2x5456x4" in result.stdout
