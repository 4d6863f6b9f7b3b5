"""`edgedet doctor` finds out by trying."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command import Command

from edgedet.cli import doctor


def part(name: str, module: str, distribution: str = "numpy") -> doctor._Part:
    return doctor._Part(name, "runtime", {module: distribution}, "onnx")


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules can be imported by the processes that doctor starts."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_a_package_that_crashes_or_fails_or_is_missing_costs_one_line_each(
    edgedet: Command, modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (modules / "crashing.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    (modules / "failing.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    (modules / "working.py").write_text("")
    parts = (
        part("a", "crashing"),
        part("b", "failing"),
        part("c", "absent", "no-such-distribution"),
        part("d", "working"),
    )
    monkeypatch.setattr(doctor, "_PARTS", parts)
    result = edgedet("doctor", "--json", "-")
    rows = {row["name"]: row for row in result.json["rows"]}
    assert result.code == 0
    assert "crashed with signal 11" in rows["a"]["problem"]
    assert "libGL.so.1" in rows["b"]["problem"]
    assert rows["c"]["problem"] == "no-such-distribution is not installed"
    assert (rows["d"]["works"], rows["d"]["problem"], rows["d"]["fix"]) == (True, "", "")
    assert {rows[name]["fix"] for name in "abc"} == {'pip install "edgedet[onnx]"'}


def test_the_exit_code_is_3_where_no_runtime_works(edgedet: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PARTS", (part("a", "absent", "no-such-distribution"),))
    assert edgedet("doctor").code == 3


@pytest.mark.slow
def test_the_parts_of_a_full_install_work_here(edgedet: Command) -> None:
    result = edgedet("doctor", "--json", "-")
    works = {row["name"] for row in result.json["rows"] if row["works"]}
    assert result.code == 0
    assert works >= {"ort", "openvino", "tflite", "eager", "evaluate", "report", "export", "train"}
    assert result.json["python"] == ".".join(map(str, sys.version_info[:3]))
