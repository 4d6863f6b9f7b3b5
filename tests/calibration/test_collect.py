"""What one run over the calibration images says of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from edgedet.data import open_dataset
from edgedet.spec import InputSpec
from edgedet_calibration.collect import collect
from edgedet_calibration.images import CalibrationImages


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_bars_beside_an_image_are_nothing_that_it_shows(tmp_path: Path, resize: Any) -> None:
    for number in range(40):  # more than are kept as tensors
        pixels = np.full((30, 80, 3), 90 + number % 3, np.uint8)
        if number in (5, 39):
            pixels[:, 40:] = 200
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), pixels)
    spec = InputSpec(size_hw=(32, 32), mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0), resize=resize)
    provenance = SimpleNamespace(checkpoint_sha256="0" * 64)
    captured: Any = SimpleNamespace(
        graph_module=torch.fx.symbolic_trace(torch.nn.Identity()),
        spec=SimpleNamespace(input=spec, labels=("cat",), provenance=provenance),
    )
    placement: Any = SimpleNamespace(ranges=())
    coverage = collect(captured, placement, CalibrationImages(open_dataset(tmp_path), spec, 40)).coverage
    assert coverage is not None
    assert (coverage.images, coverage.empty, coverage.repeated) == (40, 38, 0)
