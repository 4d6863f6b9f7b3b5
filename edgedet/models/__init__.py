"""Detectors in PyTorch: timm backbones, SSD heads, and checkpoints that describe themselves.

`config` and `zoo` are plain data and import no torch; the names below load it on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgedet.models.checkpoint import load_checkpoint, save_checkpoint
    from edgedet.models.detector import Detector, build_detector

__all__ = ["Detector", "build_detector", "load_checkpoint", "save_checkpoint"]

_MODULES = {
    "Detector": "edgedet.models.detector",
    "build_detector": "edgedet.models.detector",
    "load_checkpoint": "edgedet.models.checkpoint",
    "save_checkpoint": "edgedet.models.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
