"""Layers that a recipe keeps float are one island of every runtime: read from what the runtimes execute."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedet import registry
from edgedet.bundle import open_bundle
from edgedet.data import open_dataset
from edgedet_calibration.recipe import Recipe
from edgedet_export import verify
from edgedet_export.exporter import ExportRequest, export_bundle

# An inverted residual block without an addition: expansion, depthwise convolution and projection.
LAYERS = ("conv2d_18", "conv2d_19", "conv2d_20")


# A pointwise and a depthwise convolution, each between integers.
LONE = ("conv2d_6", "conv2d_10")


@pytest.mark.parametrize(
    ("target", "precision"),
    [
        ("onnx", "int8"),
        pytest.param("openvino", "int8", marks=pytest.mark.slow),
        pytest.param("tflite", "int8", marks=pytest.mark.slow),
        pytest.param("tflite", "int8-a16", marks=pytest.mark.slow),
    ],
)
def test_a_convolution_between_integers_stays_float_and_is_alone_in_that(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, precision: str
) -> None:
    """ONNX Runtime's optimizer and the TFLite converter would quantize it again."""
    monkeypatch.setattr(verify, "MIN_SNR_DB", {})  # fresh weights, whose noise says nothing
    calibration, recipe = open_dataset("builtin", split="val"), Recipe(images=4, float_layers=LONE)
    folder = tmp_path / "bundle"
    export_bundle(ExportRequest(checkpoint, folder, (target,), (precision,), calibration, recipe))
    bundle = open_bundle(folder)
    (artifact,) = [one for one in bundle.manifest.artifacts if one.precision == precision]
    with registry.RUNTIMES.load(artifact.runtime)(bundle.path_of(artifact), threads=1) as opened:
        graph = opened.executed(runs=1)
    floats = [one for one in graph.operators if "conv" in one.type.lower() and "float" in one.precision]
    assert len(floats) == len(LONE), floats


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_block_in_float_is_one_island_of_every_runtime_and_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "MIN_SNR_DB", {})  # fresh weights, whose noise says nothing
    targets, recipe = ("onnx", "openvino", "tflite"), Recipe(images=4, float_layers=LAYERS)
    calibration = open_dataset("builtin", split="val")
    export_bundle(ExportRequest(checkpoint, tmp_path / "bundle", targets, ("int8",), calibration, recipe))
    bundle = open_bundle(tmp_path / "bundle")
    for runtime, names in (
        ("ort", ("hardtanh_12", "hardtanh_13", "conv2d_20")),
        ("openvino", LAYERS),
        ("tflite", ("conv_pw", "conv_dw", "conv_pwl")),
    ):
        with registry.RUNTIMES.load(runtime)(bundle.path_of(bundle.artifact(runtime, "int8"))) as opened:
            graph = opened.executed(runs=1)
        islands, types = graph.islands, {operator.name: operator.type for operator in graph.operators}
        (island,) = islands
        convolutions = [name for name in island.operators if "conv" in types[name].lower()]
        assert len(convolutions) == 3, (runtime, island)
        assert all(name in found for name, found in zip(names, convolutions, strict=True)), island
