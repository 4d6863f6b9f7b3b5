"""What OpenVINO makes of the quantizations that tell it to add residuals inside convolutions."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedet import registry
from edgedet.bundle import open_bundle
from edgedet.data import open_dataset
from edgedet_calibration.recipe import Recipe
from edgedet_export.exporter import ExportRequest, ExportRow, export_bundle
from edgedet_export.passes import mark_residuals
from edgedet_export.passes.grids import quantized_range


def exported(checkpoint: Path, folder: Path) -> ExportRow:
    images = open_dataset("builtin", split="val")
    request = ExportRequest(
        checkpoint, folder, ("openvino",), ("int8",), calibration=images, recipe=Recipe(images=6)
    )
    (row,) = export_bundle(request).rows
    return row


@pytest.mark.slow
def test_the_cpu_plugin_does_not_execute_them(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With sixteen times the range they would leave four bits of what is added."""

    def wide(node: object) -> tuple[float, float]:
        low, high = quantized_range(node)
        return 16 * low, 16 * high

    monkeypatch.setattr(mark_residuals, "quantized_range", wide)
    row = exported(trained, tmp_path / "wide")
    assert row.output_snr_db is not None
    assert row.output_snr_db > 30
    bundle = open_bundle(tmp_path / "wide")
    with registry.RUNTIMES.load("openvino")(bundle.path_of(bundle.artifact("openvino", "int8"))) as opened:
        assert opened.executed(runs=1).float_chains == ()
