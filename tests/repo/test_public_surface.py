"""Names that other people's code may rely on; changing a line here is a visible change and needs a CHANGELOG
entry."""

from __future__ import annotations

import importlib

import pytest

SURFACE = {
    "edgedet": ["Bundle", "Detections", "DetectorSpec", "EdgedetError", "Pipeline", "load", "open_bundle"],
    "edgedet.decode": ["Candidates", "decode", "find_candidates", "suppress"],
}


@pytest.mark.parametrize("package", SURFACE)
def test_the_public_names_are_these_and_exist(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == SURFACE[package]
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
