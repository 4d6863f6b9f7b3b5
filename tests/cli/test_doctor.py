"""`edgedet doctor` finds out by trying."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command import Command

from edgedet import registry
from edgedet.cli import doctor
from edgedet.processor import Processor, read_processor
from edgedet.registry import install_command


def part(name: str, module: str, distribution: str = "numpy") -> doctor._Part:
    return doctor._Part(name, "a purpose", {module: distribution}, "onnx")


def package(folder: Path, name: str, text: str) -> None:
    """A module or package, by its dotted name, that is found before the installed one."""
    *above, last = name.split(".")
    for depth in range(len(above)):
        place = folder.joinpath(*above[: depth + 1])
        place.mkdir(exist_ok=True)
        (place / "__init__.py").touch()
    (folder.joinpath(*above) / f"{last}.py").write_text(text)


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
    monkeypatch.setattr(doctor.registry, "RUNTIMES", {})
    parts = (
        part("a", "crashing"),
        part("b", "failing"),
        part("c", "absent", "no-such-distribution"),
        part("d", "working"),
    )
    monkeypatch.setattr(doctor, "_PARTS", parts)
    result = edgedet("doctor", "--json", "-")
    rows = {row["name"]: row for row in result.json["rows"]}
    assert result.code == 3
    assert "crashed with signal 11" in rows["a"]["problem"]
    assert "libGL.so.1" in rows["b"]["problem"]
    assert rows["c"]["problem"] == "no-such-distribution is not installed"
    assert (rows["d"]["works"], rows["d"]["problem"], rows["d"]["fix"]) == (True, "", "")
    assert {rows[name]["fix"] for name in "abc"} == {install_command("onnx")}
    assert {name: rows[name]["how"] for name in "abcd"} == {
        "a": "loaded",
        "b": "loaded",
        "c": "looked up",
        "d": "loaded",
    }


def test_a_large_part_is_looked_up_which_is_said_and_imported_where_that_is_asked_for(
    edgedet: Command, modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (modules / "failing.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(modules))
    monkeypatch.setattr(doctor.registry, "RUNTIMES", {})
    large = replace(part("a", "failing"), is_large=True)
    gone = replace(part("b", "no_such_module"), is_large=True)
    monkeypatch.setattr(doctor, "_PARTS", (large, gone))
    result = edgedet("doctor", "--json", "-")
    rows = {row["name"]: row for row in result.json["rows"]}
    assert (rows["a"]["works"], rows["a"]["how"]) == (True, "looked up")
    assert (rows["b"]["works"], rows["b"]["how"]) == (False, "looked up")
    assert rows["b"]["problem"] == "no Python package 'no_such_module'"
    assert "looking it up" in edgedet("doctor").stdout
    (row,) = (row for row in edgedet("doctor", "--imports", "--json", "-").json["rows"] if row["name"] == "a")
    assert (row["works"], row["how"]) == (False, "loaded")
    assert "libGL.so.1" in row["problem"]


def test_the_processor_is_shown_with_what_follows_for_int8(
    edgedet: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.registry, "RUNTIMES", {})
    monkeypatch.setattr(doctor, "_PARTS", ())
    found = read_processor()
    text = edgedet("doctor").stdout
    assert found.summary in text
    assert f"INT8 speed: {found.speed}" in text
    assert f"INT8 exactness: {found.exactness}" in text
    values = edgedet("doctor", "--json", "-").json["processor"]
    assert {key: values[key] for key in Processor.model_fields} == found.model_dump(mode="json")
    assert (values["saturates"], values["speed"]) == (found.saturates, found.speed)


def test_a_runtime_works_when_its_own_module_can_be_loaded(
    edgedet: Command, modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(modules, "onnxruntime", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    package(modules, "openvino", "raise ImportError('libtbb.so: cannot open shared object file')")
    package(modules, "torch", "print('a vendor prints'); raise ModuleNotFoundError(name='torch')")
    package(modules, "tensorrt", "__version__ = '10.9'\nclass ILogger: pass")
    package(modules, "cuda.bindings", "raise ModuleNotFoundError(name='cuda.bindings')")
    package(modules, "ai_edge_litert", "raise ModuleNotFoundError(name='ai_edge_litert')")
    package(modules, "tflite_runtime.interpreter", "class Interpreter: pass")
    (modules / "tflite_runtime-2.14.0.dist-info").mkdir()
    (modules / "tflite_runtime-2.14.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: tflite-runtime\nVersion: 2.14.0\n"
    )
    monkeypatch.setattr(doctor, "_PARTS", ())
    result = edgedet("doctor", "--json", "-")
    rows = {row["name"]: row for row in result.json["rows"] if row["purpose"] == "runtime"}
    assert result.code == 0
    assert tuple(rows) == tuple(registry.RUNTIMES)
    assert [name for name in rows if rows[name]["works"]] == ["tflite"]
    assert rows["tflite"]["versions"] == "2.14.0 (tflite-runtime)"
    assert rows["tensorrt"]["problem"] == "no Python package 'cuda.bindings'"
    assert rows["tensorrt"]["fix"] == install_command("tensorrt")
    assert rows["eager"]["problem"] == "no Python package 'torch'"
    assert rows["ort"]["problem"] == "the import crashed with signal 11"
    assert "libtbb.so" in rows["openvino"]["problem"]
    assert rows["openvino"]["fix"] == install_command("openvino")


def test_the_exit_code_is_3_where_no_runtime_works(
    edgedet: Command, modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtimes = ("ai_edge_litert", "onnxruntime", "openvino", "tensorrt", "tflite_runtime", "torch")
    for name in (*runtimes, "tensorrt_rtx_bindings"):
        package(modules, name, f"raise ModuleNotFoundError(name={name!r})")
    monkeypatch.setattr(doctor, "_PARTS", ())
    assert edgedet("doctor").code == 3


def test_a_runtime_without_its_gpu_does_not_work_and_says_its_version(
    edgedet: Command, modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(modules, "tensorrt_rtx_bindings", "__version__ = '1.7'\nclass ILogger: pass")
    calls = "cudaMemcpyKind = type('K', (), {'cudaMemcpyHostToDevice': 1, 'cudaMemcpyDeviceToHost': 2})\n"
    calls += "cudaError_t = type('E', (), {'cudaSuccess': 0})\ncudaGetDeviceCount = lambda: (0, 0)\n"
    package(modules, "cuda.bindings.runtime", calls)
    monkeypatch.setattr(doctor, "_PARTS", ())
    rows = {row["name"]: row for row in edgedet("doctor", "--json", "-").json["rows"]}
    row = rows["tensorrt-rtx"]
    assert (row["works"], row["versions"], row["problem"]) == (False, "1.7", "a driver that sees no GPU")
    assert "nvidia-smi" in row["fix"]


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        ('{"url": "file:///clone", "dir_info": {"editable": true}}', 'pip install -e ".[onnx]"'),
        ('{"url": "file:///clone", "dir_info": {}}', 'pip install "edgedet[onnx]"'),
        ('{"url": "https://host/a.whl", "archive_info": {}}', 'pip install "edgedet[onnx]"'),
        (None, 'pip install "edgedet[onnx]"'),
    ],
)
def test_what_to_install_is_the_clone_where_edgedet_is_one(
    monkeypatch: pytest.MonkeyPatch, origin: str | None, command: str
) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return origin

    registry._is_editable.cache_clear()
    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Installed())
    found = install_command("onnx")
    error = registry.missing_extra("this", ModuleNotFoundError(name="onnxruntime"), "onnx")
    registry._is_editable.cache_clear()
    assert (found, error.fix) == (command, command)


@pytest.mark.slow
def test_the_parts_of_a_full_install_work_here(edgedet: Command) -> None:
    result = edgedet("doctor", "--imports", "--json", "-")
    works = {row["name"] for row in result.json["rows"] if row["works"]}
    assert result.code == 0
    assert works >= {"ort", "openvino", "tflite", "eager", "evaluate", "report", "export", "train"}
    assert result.json["python"] == ".".join(map(str, sys.version_info[:3]))
