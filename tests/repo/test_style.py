"""Rules of shape that a reader relies on and that nobody should have to check by hand."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from source_tree import ROOT, modules, tracked_files

MAX_MODULE_LINES = 500
MAX_FUNCTION_LINES = 80
FORBIDDEN_STEMS = {"base", "common", "core", "helper", "helpers", "misc", "util", "utils"}

# Paths of one machine and hosts of one registry make a checkout work in one place only.
MACHINE_PATH = re.compile(r"(?<![\w.\]])/(?:home|root|Users|work)/\w")
REGISTRY_HOST = re.compile(
    r"pythonhosted|--(?:extra-)?index-url|--find-links|https?://[^\s\"')]*(?:pypi|artifact|nexus)"
)
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX)\b")

SOURCES = [pytest.param(path, id=name) for name, path in modules().items()]


def text_files() -> list[Path]:
    return [
        path
        for path in tracked_files()
        if b"\0" not in path.read_bytes()[:8192]
        and path != Path(__file__).resolve()
        and path.name != "LICENSE"
    ]


def matches(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in text_files()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


def test_modules_are_short_enough_to_read_at_once() -> None:
    lengths = {name: len(path.read_text("utf-8").splitlines()) for name, path in modules().items()}
    assert {name: n for name, n in lengths.items() if n > MAX_MODULE_LINES} == {}


@pytest.mark.parametrize("path", SOURCES)
def test_functions_are_short_enough_to_read_at_once(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {f.name: (f.end_lineno or 0) - f.lineno + 1 for f in functions}
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES} == {}


def test_no_module_is_named_after_nothing_in_particular() -> None:
    assert [name for name in modules() if name.rpartition(".")[2] in FORBIDDEN_STEMS] == []


def test_no_module_has_the_name_of_a_package_that_it_could_shadow() -> None:
    third_party = {
        "cv2",
        "jinja2",
        "numpy",
        "onnx",
        "onnxruntime",
        "openvino",
        "pydantic",
        "tensorrt",
        "tensorrt_rtx_bindings",
        "timm",
        "torch",
    }
    assert [name for name in modules() if name.rpartition(".")[2] in third_party] == []


def test_source_roots_are_folders_and_not_packages() -> None:
    assert [p for p in ("calibration", "export", "runtimes") if (ROOT / p / "__init__.py").exists()] == []


@pytest.mark.parametrize(
    ("pattern", "bad"),
    [
        (MACHINE_PATH, "see /home/me/data"),
        (REGISTRY_HOST, "pip install --index-url https://somewhere"),
        (UNFINISHED, "# TODO later"),
    ],
    ids=["paths of one machine", "hosts of one registry", "unfinished work"],
)
def test_tracked_files_hold_none_of(pattern: re.Pattern[str], bad: str) -> None:
    assert pattern.search(bad)
    assert matches(pattern) == []
