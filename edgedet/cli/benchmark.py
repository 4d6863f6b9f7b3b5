"""`edgedet benchmark`: how long a frame takes, from image to detections, side by side in one run."""

from __future__ import annotations


def run() -> None:
    """Measure how long a frame takes."""
    raise NotImplementedError
