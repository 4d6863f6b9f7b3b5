"""What an import loads: a device must not pay for frameworks that it does not use."""

from __future__ import annotations

import subprocess
import sys

import pytest

FRAMEWORKS = (
    "ai_edge_litert",
    "defusedxml",
    "faster_coco_eval",
    "jinja2",
    "litert_torch",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "tensorrt_rtx_bindings",
    "timm",
    "torch",
    "torchao",
    "torchvision",
)


def loaded_by(statements: str) -> set[str]:
    code = f"{statements}\nimport sys; print(' '.join(m for m in sys.modules if '.' not in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statements",
    [
        "import edgedet",
        "import edgedet.data, edgedet.evaluate, edgedet.parity, edgedet.bench, edgedet.report",
        "import edgedet.cli",
        "import edgedet_runtimes, edgedet_calibration, edgedet_export",
    ],
)
def test_importing_loads_no_framework(statements: str) -> None:
    assert loaded_by(statements) & set(FRAMEWORKS) == set()


def test_importing_the_library_loads_nothing_of_the_command_line() -> None:
    assert loaded_by("import edgedet") & {"typer", "rich", "click"} == set()


def test_the_test_sees_a_framework_that_is_loaded() -> None:
    assert "defusedxml" in loaded_by("import edgedet, defusedxml")
