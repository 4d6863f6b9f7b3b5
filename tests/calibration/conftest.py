"""One captured detector for the tests of calibration."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgedet.data import open_dataset
from edgedet.models import load_checkpoint
from edgedet.models.capture import Captured, capture
from edgedet_calibration.collect import collect
from edgedet_calibration.images import CalibrationImages
from edgedet_calibration.placement import Placement, place
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import Stats


@pytest.fixture(scope="session")
def captured(trained: Path) -> Captured:
    with torch.no_grad():
        return capture(load_checkpoint(trained))


@pytest.fixture(scope="session")
def placement(captured: Captured) -> Placement:
    return place(captured.graph_module)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe(images=6, bias_correction=False, rounding="nearest")


@pytest.fixture(scope="session")
def calibration(captured: Captured, recipe: Recipe) -> CalibrationImages:
    return CalibrationImages(open_dataset("builtin", split="val"), captured.spec.input, recipe.images)


@pytest.fixture(scope="session")
def stats(captured: Captured, placement: Placement, calibration: CalibrationImages) -> Stats:
    return collect(captured, placement, calibration)
