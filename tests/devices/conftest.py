from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for stand_in

from stand_in import Lab, StandIn


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    root = tmp_path / "lab"
    root.mkdir()
    lab = Lab(root)
    monkeypatch.setenv("PATH", str(lab.programs), prepend=":")
    return lab


@pytest.fixture
def stand_in(lab: Lab, request: pytest.FixtureRequest) -> StandIn:
    """A device; through ssh, where a test does not ask for another way."""
    return lab.machine(transport=getattr(request, "param", "ssh"))
