"""What the contract suites hold to their promises: every runtime with every artifact of the shared bundle."""

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
from edgedet.bundle import RUNTIME_OF_SUFFIX, Bundle
from edgedet.errors import MissingError, UsageError
from edgedet.preprocess import preprocess
from edgedet.spec import DetectorSpec

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


# Those that compute on a GPU alone: `pytest -m gpu` runs their part of the suite on a machine that has one.
_ON_GPU = ("tensorrt", "tensorrt-rtx")


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.gpu) if name in _ON_GPU else name for name in registry.RUNTIMES
    ]
)
def runtime(request: pytest.FixtureRequest) -> Any:
    """Every runtime of the table that this machine can import."""
    try:
        return registry.RUNTIMES.load(request.param)
    except MissingError as exc:
        pytest.skip(str(exc))


@pytest.fixture(params=["fp32", "fp16", "int8"])
def subject(request: pytest.FixtureRequest, runtime: Any, full_bundle: Bundle) -> Subject:
    """Every runtime with its artifact of each precision."""
    try:
        runtime.check_device()
        artifact = full_bundle.artifact(runtime.name, request.param)
    except UsageError:
        pytest.skip(f"no target makes {request.param} artifacts for {runtime.name}")
    except MissingError as exc:
        pytest.skip(str(exc))
    return Subject(runtime, full_bundle.path_of(artifact), full_bundle.spec_of(artifact))


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
def feeds(full_bundle: Bundle, image_bgr: Image) -> dict[str, Floats]:
    """What every runtime of the bundle takes, made from the image."""
    return {full_bundle.spec.input.name: preprocess(image_bgr, full_bundle.spec.input)[0]}


@pytest.fixture
def suffix(runtime: Any) -> str:
    """How a runtime's files end."""
    return next(suffix for suffix, name in RUNTIME_OF_SUFFIX.items() if name == runtime.name)
