"""One small detector, exported once, for the contract suites."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from edgedet import registry
from edgedet.bundle import RUNTIME_OF_SUFFIX, Bundle, open_bundle
from edgedet.errors import MissingError, UsageError
from edgedet.preprocess import preprocess
from edgedet.spec import DetectorSpec, InputSpec

sys.path.insert(0, str(Path(__file__).parent))  # for tensorrt_stand_in

if TYPE_CHECKING:
    from edgedet.boxes import Floats
    from edgedet.preprocess import Image


@dataclass(frozen=True)
class Subject:
    """A runtime under test and the artifact that it opens."""

    runtime: Any
    path: Path
    spec: DetectorSpec

    @property
    def suffix(self) -> str:
        return self.path.suffix

    def open(self, **options: Any) -> Any:
        return self.runtime(self.path, **options)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """MobileNetV2 0.35 at 96x96, two maps and one extra layer: every operator of a real detector in 1 MB."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("litert_torch", reason="the export extra is not installed")
    from edgedet.models.checkpoint import save_checkpoint
    from edgedet.models.config import BackboneConfig, DetectorConfig, SsdLiteConfig
    from edgedet.models.detector import build_detector
    from edgedet_export.exporter import ExportRequest, export_bundle

    torch.manual_seed(0)
    config = DetectorConfig(
        name="contract",
        labels=("red", "white", "<&'é\">"),
        input=InputSpec(size_hw=(96, 96)),
        backbone=BackboneConfig(name="mobilenetv2_035", out_strides=(16, 32)),
        head=SsdLiteConfig(extra_channels=(64,), scales=(0.2, 0.4, 0.7, 1.0)),
    )
    folder = tmp_path_factory.mktemp("contract")
    save_checkpoint(folder / "checkpoint.safetensors", build_detector(config).eval())
    export_bundle(
        ExportRequest(
            checkpoint=folder / "checkpoint.safetensors",
            output=folder / "bundle",
            targets=("onnx", "openvino", "tflite"),
            precisions=("fp32",),
        )
    )
    return open_bundle(folder / "bundle")


@pytest.fixture(params=list(registry.RUNTIMES))
def runtime(request: pytest.FixtureRequest) -> Any:
    """Every runtime of the table that this machine can import."""
    try:
        return registry.RUNTIMES.load(request.param)
    except MissingError as exc:
        pytest.skip(str(exc))


@pytest.fixture
def subject(runtime: Any, bundle: Bundle) -> Subject:
    """Every runtime with an artifact of the bundle."""
    try:
        artifact = bundle.artifact(runtime.name, "fp32")
    except UsageError as exc:
        pytest.skip(str(exc))
    return Subject(runtime, bundle.path_of(artifact), bundle.spec)


@pytest.fixture(scope="session")
def image_bgr() -> Image:
    """A photograph where the test data is, otherwise shapes on noise."""
    root = os.environ.get("EDGEDET_TEST_DATA")
    if root:
        image = cv2.imread(str(Path(root) / "data" / "bccd" / "example.jpg"))
        assert image is not None
        return np.asarray(image, np.uint8)
    drawn = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    cv2.circle(drawn, (60, 50), 30, (40, 40, 200), -1)
    cv2.rectangle(drawn, (90, 60), (150, 110), (230, 230, 230), -1)
    return drawn


@pytest.fixture
def feeds(bundle: Bundle, image_bgr: Image) -> dict[str, Floats]:
    """What every runtime of the bundle takes, made from the image."""
    return {bundle.spec.input.name: preprocess(image_bgr, bundle.spec.input)[0]}


@pytest.fixture
def suffix(runtime: Any) -> str:
    """How a runtime's files end."""
    return next(suffix for suffix, name in RUNTIME_OF_SUFFIX.items() if name == runtime.name)
