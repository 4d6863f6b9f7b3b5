"""Checkpoints in which something died while they were trained: exported faithfully, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgedet import registry
from edgedet.bundle import open_bundle
from edgedet.data import open_dataset
from edgedet.errors import CheckpointError
from edgedet.models import load_checkpoint, save_checkpoint
from edgedet.preprocess import preprocess
from edgedet_calibration.recipe import Recipe
from edgedet_export.exporter import ExportRequest, export_bundle


def request(checkpoint: Path, output: Path, *precisions: str) -> ExportRequest:
    images = open_dataset("builtin", split="val")
    return ExportRequest(checkpoint, output, ("onnx",), precisions, images, Recipe(images=4))


@pytest.mark.parametrize("bias", [pytest.param(3.0, marks=pytest.mark.slow), 1e4])
def test_a_predictor_behind_a_dead_layer_still_gives_its_bias_in_int8(
    trained: Path, tmp_path: Path, bias: float
) -> None:
    detector = load_checkpoint(trained)
    predictor = detector.head.class_predictors[2]
    with torch.no_grad():
        for parameter in predictor.depthwise.parameters():
            parameter.zero_()
        predictor.pointwise.weight.mul_(1e-9)
        predictor.pointwise.bias.fill_(bias)
    save_checkpoint(tmp_path / "dead.safetensors", detector)
    export_bundle(request(tmp_path / "dead.safetensors", tmp_path / "bundle", "int8"))
    bundle = open_bundle(tmp_path / "bundle")
    tensor, _ = preprocess(next(iter(open_dataset("builtin"))).image_bgr, bundle.spec.input)
    feeds = {bundle.spec.input.name: tensor}
    artifact = bundle.artifact("ort", "int8")
    with registry.RUNTIMES.load("ort")(bundle.path_of(artifact)) as runtime:
        found = runtime.run(feeds)["class_logits"]
    with torch.inference_mode():
        expected = np.asarray(detector(torch.from_numpy(tensor))[1])
    constant = (expected == bias).all(axis=2)
    assert constant.sum() > 50
    np.testing.assert_allclose(found[constant], bias, rtol=0.04)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_checkpoint_that_computes_no_numbers_is_refused(
    trained: Path, tmp_path: Path, precision: str
) -> None:
    detector = load_checkpoint(trained)
    with torch.no_grad():
        detector.head.box_predictors[0].pointwise.bias[0] = float("nan")
    save_checkpoint(tmp_path / "nan.safetensors", detector)
    with pytest.raises(CheckpointError, match="values of box_offsets that are not finite"):
        export_bundle(request(tmp_path / "nan.safetensors", tmp_path / "bundle", precision))
    assert not (tmp_path / "bundle").exists()
