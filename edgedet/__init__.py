"""edgedet: mobile detectors from PyTorch to device formats, with proof that they detect the same."""

from __future__ import annotations

from edgedet.bundle import Bundle, open_bundle
from edgedet.detections import Detection, Detections
from edgedet.errors import EdgedetError
from edgedet.pipeline import Pipeline, load
from edgedet.spec import DetectorSpec

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "Detection",
    "Detections",
    "DetectorSpec",
    "EdgedetError",
    "Pipeline",
    "load",
    "open_bundle",
]
