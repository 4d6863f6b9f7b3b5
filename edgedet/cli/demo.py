"""`edgedet demo`: the main job on the built-in model and data."""

from __future__ import annotations


def run() -> None:
    """Do the main job on the built-in model and data."""
    raise NotImplementedError
