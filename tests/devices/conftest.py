from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for stand_in

from stand_in import SSH, StandIn

from edgedet.devices import parse_address


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    cache = tmp_path / "cache"
    cache.mkdir()
    script = tmp_path / "bin" / "ssh"
    script.parent.mkdir()
    script.write_text(SSH.format(cache=cache))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=":")
    return StandIn(parse_address(f"ssh://pi@camera?python={sys.executable}"), cache)
