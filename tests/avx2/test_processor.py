"""What runs on the emulated processor sees that one and no other."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.avx2

ROOT = Path(__file__).resolve().parents[2]
FLAGS = "from numpy._core._multiarray_umath import __cpu_features__ as f; print(f['AVX2'], f['AVX512F'])"
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {FLAGS!r}], check=True)"
SATURATES = "from edgedet.processor import read_processor; print(read_processor().saturates)"


def said(python: Path, code: str) -> str:
    done = subprocess.run(
        [str(python), "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.parametrize("code", [FLAGS, CHILD])
def test_a_process_and_its_children_have_avx2_and_no_avx512(avx2_python: Path, code: str) -> None:
    """/proc/cpuinfo there is of the machine around it, and proves nothing."""
    assert said(avx2_python, code) == "True False"


def test_the_processor_is_known_to_saturate(avx2_python: Path) -> None:
    assert said(avx2_python, SATURATES) == "True"
