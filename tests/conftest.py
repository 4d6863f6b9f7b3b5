"""Fixtures that tests of every package share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with real data sets, which is never part of the repository."""
    root = os.environ.get("EDGEDET_TEST_DATA", "")
    if not root:
        pytest.skip("EDGEDET_TEST_DATA is not set: it names the folder that holds data/bccd and others")
    path = Path(root)
    if not (path / "data").is_dir():
        pytest.fail(f"EDGEDET_TEST_DATA is {root!r}, which has no folder `data`")
    return path
