"""Where quantizers go, as text: `EDGEDET_REGENERATE=1 pytest tests/golden` writes the files anew."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import torch

from edgedet.models import build_detector
from edgedet.models.capture import Captured, capture
from edgedet.models.zoo import zoo_config
from edgedet_calibration.lower import NOT_LOWERED, lower
from edgedet_calibration.placement import place

FOLDER = Path(__file__).parent / "placement"


NAMES = ("ghostnet", "mnasnet", "mobilenetv2", "mobilenetv3_large", "mobilenetv3_small")


@pytest.fixture(scope="module", params=NAMES)
def captured(request: pytest.FixtureRequest) -> Captured:
    torch.manual_seed(0)
    with torch.no_grad():
        return capture(build_detector(zoo_config(f"ssdlite320_{request.param}", labels=("thing",))))


@pytest.mark.parametrize("fuses_epilogues", [True, False], ids=["fused", "lowered"])
def test_the_placement_of_the_zoo_is_what_was_reviewed(captured: Captured, fuses_epilogues: bool) -> None:
    graph_module = copy.deepcopy(captured.graph_module)
    lowered = NOT_LOWERED if fuses_epilogues else lower(graph_module, lambda _: False)
    text = place(graph_module, fuses_epilogues=fuses_epilogues, constants=lowered.fixed).dump()
    path = FOLDER / f"{captured.spec.name}.{'fused' if fuses_epilogues else 'lowered'}.txt"
    if os.environ.get("EDGEDET_REGENERATE"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("fuses_epilogues", [True, False], ids=["fused", "lowered"])
def test_between_input_and_predictors_nothing_stays_float(captured: Captured, fuses_epilogues: bool) -> None:
    graph_module = copy.deepcopy(captured.graph_module)
    lowered = NOT_LOWERED if fuses_epilogues else lower(graph_module, lambda _: False)
    units = place(graph_module, fuses_epilogues=fuses_epilogues, constants=lowered.fixed).units
    placed = {name for unit in units for name in unit.nodes}
    left = {
        str(node.target)
        for node in graph_module.graph.nodes
        if node.op == "call_function" and node.name not in placed
    }
    assert left <= {"aten.permute.default", "aten.reshape.default", "aten.cat.default"}
