"""Every detector of the zoo through the CPU targets, which is why `edgedet models` may call them tested.

Weights are random, with batch normalisation settled on drawn scenes, so that signals have a usual size in
every layer. Each artifact must pass the verification of every export, against PyTorch in the same integers:
rounding is not learned, which takes minutes and changes nothing in that.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgedet.data import open_dataset
from edgedet.data.synthetic import LABELS
from edgedet.models.checkpoint import save_checkpoint
from edgedet.models.detector import Detector, build_detector
from edgedet.models.zoo import ZOO, zoo_config
from edgedet.preprocess import preprocess
from edgedet.spec import Precision
from edgedet_calibration.recipe import Recipe
from edgedet_export.exporter import ExportRequest, ExportRow, export_bundle

IMAGES = 4
# The conversion to INT8 TFLite takes the longest, so only networks that differ in kind go through it: plain
# ReLU6 with residuals, and hard-swish with squeeze-and-excitation.
INT8_TFLITE = ("ssdlite256_mobilenetv2_035", "ssdlite320_mobilenetv3_small")


def settled(detector: Detector) -> Detector:
    """With the statistics of a batch of scenes instead of zeros and ones."""
    data = open_dataset("builtin", split="val")
    spec = detector.spec().input
    images = torch.cat([torch.from_numpy(preprocess(data[i].image_bgr, spec)[0]) for i in range(IMAGES)])
    with torch.no_grad():
        for _ in range(20):
            detector.train()(images)
    return detector.eval()


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ZOO]
)
def entry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of each detector."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("zoo") / f"{request.param}.safetensors"
    save_checkpoint(path, settled(build_detector(zoo_config(request.param, LABELS))))
    return path


def export(
    checkpoint: Path, folder: Path, targets: tuple[str, ...], *precisions: Precision
) -> tuple[ExportRow, ...]:
    request = ExportRequest(
        checkpoint,
        folder / "bundle",
        targets,
        precisions,
        calibration=open_dataset("builtin", split="val"),
        recipe=Recipe(images=IMAGES, rounding="nearest"),
    )
    report = export_bundle(request)
    print(checkpoint.stem, [(row.target, row.output_snr_db, row.seconds) for row in report.rows])
    return report.rows


def all_ok(rows: tuple[ExportRow, ...], targets: tuple[str, ...]) -> bool:
    return [(row.target, row.status) for row in rows] == [(target, "ok") for target in targets]


@pytest.mark.slow
def test_every_detector_of_the_zoo_exports_in_float(entry: Path, tmp_path: Path) -> None:
    targets = ("onnx", "openvino", "tflite")
    assert all_ok(export(entry, tmp_path, targets, "fp32"), targets)


@pytest.mark.slow
def test_every_detector_of_the_zoo_exports_in_int8(entry: Path, tmp_path: Path) -> None:
    targets = ("onnx", "openvino", "tflite") if entry.stem in INT8_TFLITE else ("onnx", "openvino")
    assert all_ok(export(entry, tmp_path, targets, "int8"), targets)


@pytest.mark.slow
def test_every_detector_of_the_zoo_is_accepted_and_built_for_rtx_gpus(entry: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="the extra tensorrt-rtx is not installed")
    rows = export(entry, tmp_path, ("tensorrt-rtx",), "fp32", "int8")
    assert {row.status for row in rows} <= {"ok", "built"}
