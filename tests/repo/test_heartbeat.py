"""`make test` says what is running while no test ends."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = """
from importlib.util import module_from_spec, spec_from_file_location

spec = spec_from_file_location("shared", {path!r})
shared = module_from_spec(spec)
spec.loader.exec_module(shared)
shared._SILENCE_S = 0.3
pytest_configure = shared.pytest_configure
"""
TESTS = """
import time

def test_that_takes_long():
    time.sleep(2)

def test_that_fails():
    print("a captured line")
    raise AssertionError
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text(
        CONFTEST.format(path=str(Path(__file__).parents[1] / "conftest.py"))
    )
    (tmp_path / "test_slow.py").write_text(TESTS)
    return tmp_path


def output_of(folder: Path, *options: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    return done.stdout


def test_two_processes_say_which_test_takes_long_and_capture_stays_clean(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    text = output_of(folder, "-n", "1")
    assert re.search(
        r"^\[\d+ s\] 0 of 2 tests; running: test_slow\.py::test_that_takes_long \(\d s\)$", text, re.M
    )
    captured = text.partition("Captured stdout call")[2]
    assert captured.splitlines()[1] == "a captured line"


def test_one_process_whose_output_is_captured_prints_dots_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    assert "running:" not in output_of(folder, "-p", "no:xdist")
