"""A detector that was trained in 8 bits is held against itself in 8 bits, not its weights in float."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgedet.bundle import open_bundle
from edgedet.data import open_dataset
from edgedet.models.checkpoint import load_checkpoint, save_checkpoint
from edgedet.parity.run import run_parity
from edgedet_calibration.qat import quantized_detector
from edgedet_export import verify
from edgedet_export.exporter import ExportRequest, export_bundle


@pytest.mark.slow
def test_its_detections_are_those_of_the_training_graph(trained: Path, tmp_path: Path, monkeypatch) -> None:
    detector = quantized_detector(load_checkpoint(trained), open_dataset("builtin", split="val"), 4).eval()
    with torch.no_grad():
        for name, value in detector.named_parameters():
            if name.endswith("log_high_factor"):
                value.sub_(0.5)  # as if training had got used to values that are cut off
    save_checkpoint(tmp_path / "qat.safetensors", detector)
    monkeypatch.setattr(verify, "MIN_SNR_DB", {})
    export_bundle(
        ExportRequest(tmp_path / "qat.safetensors", tmp_path / "bundle", ("onnx",), ("fp32", "int8"))
    )
    bundle = open_bundle(tmp_path / "bundle")
    report = run_parity(bundle, open_dataset("builtin", split="test"), precisions=["int8"], limit=12)
    (row,) = report.rows
    assert row.matched_fraction > 0.97 > row.map / report.reference.map  # in float it would find more
