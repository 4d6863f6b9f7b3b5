"""The emulated ARM device that tests of this folder run on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from host import Arm64Host, CannotStartError, running_host


@pytest.fixture(scope="session")
def arm64_host() -> Iterator[Arm64Host]:
    """An ARM device behind ssh; each process of a test run has its own, and one root serves all."""
    try:
        with running_host() as host:
            yield host
    except CannotStartError as exc:
        pytest.skip(str(exc))
