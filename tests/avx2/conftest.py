"""A processor without VNNI that tests of this folder run on, and detectors for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "devices"))  # for stand_in

from emulated_python import CannotEmulateError, write_python
from stand_in import Lab, StandIn

from edgedet.bundle import Bundle, open_bundle
from edgedet.data import open_dataset

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "weights" / "bccd_ssdlite320_mobilenetv2.safetensors"
# What the sources of this clone are found by, whatever is installed.
SOURCES = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "runtimes")])}

Outputs = Mapping[str, Any]


@pytest.fixture(scope="session")
def avx2_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This Python on that processor."""
    try:
        return write_python(tmp_path_factory.mktemp("avx2"))
    except CannotEmulateError as exc:
        pytest.skip(str(exc))


@pytest.fixture
def avx2_device(avx2_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A device with that processor, which is reached as by ssh."""
    root = tmp_path / "lab"
    root.mkdir()
    lab = Lab(root)
    monkeypatch.setenv("PATH", str(lab.programs), prepend=":")
    return lab.machine(python=str(avx2_python))


@pytest.fixture(scope="session")
def photographs(test_data: Path) -> Path:
    """Blood cells."""
    return test_data / "data" / "bccd"


@pytest.fixture(scope="session")
def safe_cells(shared_folder: Path, photographs: Path) -> Bundle:
    """The detector of blood cells in INT8 whose sums cannot overflow."""
    return exported(shared_folder / "safe_cells", photographs, "onnx openvino", pair_safe=True)


@pytest.fixture(scope="session")
def unsafe_cells(shared_folder: Path, photographs: Path) -> Bundle:
    """The same with sums that can, as INT8 usually is; for LiteRT, too, whose sums should not."""
    targets = "onnx openvino tflite" if find_spec("litert_torch") else "onnx openvino"
    return exported(shared_folder / "unsafe_cells", photographs, targets, pair_safe=False)


def exported(path: Path, photographs: Path, targets: str, *, pair_safe: bool) -> Bundle:
    """A bundle that the first process to come here exports."""
    from edgedet_calibration.recipe import Recipe
    from edgedet_export.exporter import ExportRequest, export_bundle

    with FileLock(f"{path}.lock"):
        if not path.exists():
            request = ExportRequest(
                CHECKPOINT,
                path,
                tuple(targets.split()),
                ("fp32", "int8"),
                calibration=open_dataset(photographs, "train"),
                recipe=Recipe(images=16, pair_safe=pair_safe),
            )
            export_bundle(request)
    return open_bundle(path)


@pytest.fixture
def outputs(tmp_path: Path, photographs: Path) -> Callable[..., Outputs]:
    """Gives the raw outputs of an INT8 artifact in a process of a Python, by image and name."""

    def run(python: Path | str, bundle: Bundle, runtime: str, images: int, **variables: str) -> Outputs:
        import numpy as np

        path = tmp_path / "outputs.npz"
        command = [python, Path(__file__).with_name("outputs_of.py"), bundle.root, runtime, "int8"]
        command += [photographs, str(images), path]
        subprocess.run(list(map(str, command)), check=True, env={**os.environ, **SOURCES, **variables})
        with np.load(path) as found:
            return dict(found)

    return run
