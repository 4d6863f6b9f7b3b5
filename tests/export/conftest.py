"""One INT8 export to every target, shared by the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from edgedet.bundle import Bundle, open_bundle
from edgedet.data import open_dataset


@pytest.fixture(scope="session")
def full_bundle(shared_folder: Path, trained: Path) -> Bundle:
    """Every target in fp32 and int8, to be read and never written."""
    from edgedet_calibration.recipe import Recipe
    from edgedet_export.exporter import ExportRequest, export_bundle

    path = shared_folder / "full"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            export_bundle(
                ExportRequest(
                    trained,
                    path,
                    ("onnx", "openvino", "tflite", "tensorrt"),
                    ("fp32", "int8"),
                    calibration=open_dataset("builtin", split="val"),
                    recipe=Recipe(images=6),
                )
            )
    return open_bundle(path)
