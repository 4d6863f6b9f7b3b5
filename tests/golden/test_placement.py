"""Where quantizers go, as text: `EDGEDET_REGENERATE=1 pytest tests/golden` writes the files anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from edgedet.models import build_detector
from edgedet.models.capture import capture
from edgedet.models.zoo import zoo_config
from edgedet_calibration.placement import place

FOLDER = Path(__file__).parent / "placement"


@pytest.mark.parametrize("name", ["ssdlite320_mobilenetv2", "ssdlite320_ghostnet", "ssdlite320_mnasnet"])
def test_the_placement_of_the_zoo_is_what_was_reviewed(name: str) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        captured = capture(build_detector(zoo_config(name, labels=("thing",))))
    text = place(captured.graph_module).dump()
    path = FOLDER / f"{name}.txt"
    if os.environ.get("EDGEDET_REGENERATE"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()
