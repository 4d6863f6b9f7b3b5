"""`edgedet inspect --quantization` shows the scales that are in the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scales_of_artifact import scales_of_artifact

from edgedet.bundle import Bundle
from edgedet.cli import main
from edgedet.data import open_dataset
from edgedet.models.checkpoint import load_checkpoint, save_checkpoint
from edgedet_calibration.qat import quantized_detector
from edgedet_calibration.stats import Stats
from edgedet_export.exporter import ExportRequest, export_bundle

_ENCODINGS = {
    "ort": "onnxruntime",
    "openvino": "openvino",
    "tflite": "tflite",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt",
}


@pytest.fixture(scope="module")
def tables(full_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the command writes, by runtime."""
    path = tmp_path_factory.mktemp("inspect") / "values.json"
    assert main(["inspect", str(full_bundle.root), "--quantization", "--json", str(path)]) == 0
    return {table["runtime"]: table for table in json.loads(path.read_text())["quantization"]}


def differing(found: set[tuple[float, int]], shown: set[tuple[float, int]]) -> list[tuple[float, int]]:
    """What one side has and the other has not, to the rounding of float32."""

    def has(side: set[tuple[float, int]], scale: float, zero_point: int) -> bool:
        return any(zero_point == z and scale == pytest.approx(s, rel=1e-6) for s, z in side)

    return [one for one in found if not has(shown, *one)] + [one for one in shown if not has(found, *one)]


@pytest.mark.parametrize("runtime", list(_ENCODINGS))
def test_the_scales_that_are_shown_are_those_of_the_artifact(
    full_bundle: Bundle, tables: dict[str, dict[str, Any]], runtime: str
) -> None:
    table = tables[runtime]
    assert table["encoding"] == _ENCODINGS[runtime]
    path = full_bundle.root / table["file"]
    if path.suffix in (".engine", ".rtx"):  # an engine cannot be read, the ONNX that it was built from can
        path = path.with_name(path.name + ".onnx" if path.suffix == ".rtx" else "model.trt.onnx")
    artifact = scales_of_artifact(path)
    shown = {(tensor["scale"], tensor["zero_point"]) for tensor in table["tensors"]}
    assert len(shown) > 30
    assert differing(artifact.activations, shown) == []
    weights = {tuple(tensor["weight"]["scales"]) for tensor in table["tensors"] if tensor["weight"]}
    assert len(weights) > 40
    assert artifact.weights == weights


@pytest.mark.slow
def test_all_artifacts_of_a_quantized_training_have_the_learned_scales(trained: Path, tmp_path: Path) -> None:
    detector = quantized_detector(load_checkpoint(trained), open_dataset("builtin", split="val"), 4).eval()
    ranges = detector.learned_ranges()
    save_checkpoint(tmp_path / "qat.safetensors", detector)
    request = ExportRequest(
        tmp_path / "qat.safetensors", tmp_path / "bundle", ("onnx", "openvino", "tflite"), ("int8",)
    )
    export_bundle(request)
    onnx, openvino, tflite = (
        scales_of_artifact(tmp_path / "bundle" / "int8" / f"model.{suffix}")
        for suffix in ("onnx", "xml", "tflite")
    )
    # The same integers, once unsigned and once signed.
    assert differing({(scale, zero - 128) for scale, zero in onnx.activations}, tflite.activations) == []
    # OpenVINO computes residual additions inside convolutions, and so quantizes less.
    assert len(openvino.activations) > 20
    assert not differing(openvino.activations | onnx.activations, onnx.activations)
    assert onnx.weights == openvino.weights == tflite.weights
    learned = {np.float32((high - low) / 255) for low, high in ranges.values()}
    for scale, _ in onnx.activations:
        assert any(scale == pytest.approx(float(one), rel=1e-6) for one in learned)


def test_what_was_seen_is_what_the_calibration_holds(
    full_bundle: Bundle, tables: dict[str, dict[str, Any]]
) -> None:
    path = full_bundle.root / "calibration.json"
    stats = Stats.from_json(path.read_bytes(), source=str(path))
    for tensor in tables["ort"]["tensors"]:
        seen = stats.tensors[tensor["name"]]
        assert tensor["seen"] == [seen.low, seen.high]
        assert tensor["scale"] > 0
    kinds = {tensor["kind"] for tensor in tables["ort"]["tensors"]}
    assert {"input", "weighted", "elementwise"} <= kinds


def test_the_tables_fit_120_columns_and_show_what_the_json_holds(
    full_bundle: Bundle, tables: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["inspect", str(full_bundle.root), "--quantization", "--runtimes", "ort,tflite"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    titles = [line for line in lines if ", encoding " in line]
    assert titles == [
        "int8/model.onnx (ort), encoding onnxruntime",
        "int8/model.tflite (tflite), encoding tflite",
    ]
    shown = lines[lines.index(titles[0]) + 2 :]
    for tensor, line in zip(tables["ort"]["tensors"], shown, strict=False):
        assert len(line) <= 120
        assert line.split()[:2] == [tensor["name"], tensor["kind"]]
        assert f"{tensor['scale']:.4g}" in line.split()
        if tensor["weight"]:
            assert f"{tensor['weight']['channels']}: {min(tensor['weight']['scales']):.4g}" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["int8/model.onnx", "--quantization"], "give the bundle's folder"),
        (["", "--quantization", "--runtimes", "eager"], "no int8 artifact for eager"),
        (["", "--runtimes", "ort"], "expected --executed or --quantization"),
    ],
)
def test_quantization_that_cannot_be_shown_is_refused(
    full_bundle: Bundle, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert main(["inspect", str(full_bundle.root / options[0]), *options[1:]]) == 2
    assert words in capsys.readouterr().err


def test_a_bundle_without_int8_has_no_quantization_to_show(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(bundle), "--quantization"]) == 2
    assert "export again with --precision int8" in capsys.readouterr().err
