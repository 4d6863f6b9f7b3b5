"""A device: the base install and one runtime, no torch. It detects, inspects and measures."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import cv2
import pytest
from source_tree import ROOT

from edgedet.data import open_dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel of this checkout and ONNX Runtime."""
    folder = tmp_path_factory.mktemp("device")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    command = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", f"{ROOT}[onnx]"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return python


def run(python: Path, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    # In a folder of its own and isolated (-I), so that the checkout is not imported instead of the install.
    command = [python, "-I", "-m", "edgedet", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def test_no_framework_is_installed(device: Path) -> None:
    done = subprocess.run([device, "-m", "pip", "list", "--format=json"], capture_output=True, check=True)
    names = {package["name"].lower() for package in json.loads(done.stdout)}
    assert {"edgedet", "onnxruntime"} <= names
    assert not {"torch", "openvino", "ai-edge-litert", "onnx", "faster-coco-eval", "jinja2"} & names


def test_it_detects_inspects_and_measures(device: Path, bundle: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(cv2.imencode(".jpg", open_dataset("builtin", "test")[0].image_bgr)[1].tobytes())
    detected = run(
        device, "detect", bundle, picture, "--json", "-", "--save", tmp_path / "out", folder=tmp_path
    )
    assert detected.returncode == 0, detected.stderr
    here = subprocess.run(
        [sys.executable, "-m", "edgedet", "detect", bundle, picture, "--runtime", "ort", "--json", "-"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(detected.stdout) == json.loads(here.stdout)
    assert (tmp_path / "out" / "picture.jpg").is_file()
    for arguments in (
        ("inspect", bundle),
        ("inspect", bundle / "fp32" / "model.onnx"),
        ("benchmark", bundle, "--runtimes", "ort", "--duration", "0.5"),
        ("doctor",),
        ("models",),
    ):
        done = run(device, *arguments, folder=tmp_path)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"


def test_what_it_lacks_is_named_with_the_extra(device: Path, bundle: Path, tmp_path: Path) -> None:
    checkpoint = bundle / "fp32" / "model.safetensors"
    for arguments, extra in (
        (("detect", bundle, "picture.jpg", "--runtime", "openvino"), "openvino"),
        (("detect", bundle, "picture.jpg", "--runtime", "eager"), "torch"),
        (("evaluate", bundle, "--data", "builtin"), "evaluate"),
        (("export", checkpoint, "--to", "onnx", "--output", "new"), "export"),
        (("train", "detector.toml"), "train"),
        (("demo",), "export"),
    ):
        done = run(device, *arguments, folder=tmp_path)
        assert done.returncode == 3, f"{arguments}: {done.stdout}{done.stderr}"
        assert f'pip install "edgedet[{extra}]"' in done.stderr
        assert "Traceback" not in done.stderr
