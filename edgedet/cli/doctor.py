"""`edgedet doctor`: the processor, and what works on this machine, with the command that mends what does not.

Each runtime is loaded in a process of its own, as every command loads it: a vendor's library that crashes or
hangs on this processor then costs one line of the table and not the command. The packages of export and
training take longer to import than all runtimes together, and so are looked up unless `--imports` is given.
"""

from __future__ import annotations

import json as json_format
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Annotated, Any, Literal

import typer

import edgedet
from edgedet import registry
from edgedet.cli.output import JsonOption, open_output
from edgedet.cli.progress import Bars
from edgedet.environment import Environment, read_environment

_How = Literal["asked", "loaded", "looked up"]

_TIMEOUT_S = 300
_NOT_INSTALLED = "not installed"

# Loads the runtime of a name and prints what came of it as the last line, after whatever the vendor prints.
_LOAD_RUNTIME = """
import json, sys
from edgedet import errors, registry
found = {"version": "", "problem": "", "fix": ""}
try:
    runtime = registry.RUNTIMES.load(sys.argv[1])
    found["version"] = runtime.version()
    runtime.check_device()
except errors.EdgedetError as exc:
    found.update(problem=exc.got, fix=exc.fix)
print("\\n" + json.dumps(found), flush=True)
"""


@dataclass(frozen=True, slots=True)
class _Part:
    """Something that works when its packages can be imported: distributions by the name of their import.

    A runtime is none of these: what it imports, and what it takes instead, is for its own module to say.
    """

    name: str
    purpose: str
    packages: dict[str, str]
    extra: str
    is_large: bool = False


_PARTS = (
    _Part(
        "build-rtx",
        "TensorRT for RTX engines, without a GPU",
        {"tensorrt_rtx_bindings": "tensorrt-rtx-cu12-libs"},
        "tensorrt-rtx",
    ),
    _Part(
        "evaluate",
        "mAP, VOC files",
        {"faster_coco_eval": "faster-coco-eval", "defusedxml": "defusedxml"},
        "evaluate",
    ),
    _Part("report", "HTML reports", {"jinja2": "jinja2"}, "report"),
    _Part(
        "export",
        "export, calibration",
        {
            "torch": "torch",
            "torchao": "torchao",
            "onnx": "onnx",
            "onnxscript": "onnxscript",
            "openvino": "openvino",
            "litert_torch": "litert-torch",
        },
        "export",
        is_large=True,
    ),
    _Part(
        "train",
        "training",
        {"torchvision": "torchvision", "timm": "timm", "matplotlib": "matplotlib"},
        "train",
        is_large=True,
    ),
)


@dataclass(frozen=True, slots=True)
class _Finding:
    name: str
    purpose: str
    works: bool
    versions: str
    problem: str
    fix: str
    how: _How = "loaded"


def run(
    imports: Annotated[
        bool, typer.Option("--imports", help="Import the packages of export and training too: a minute.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Show the processor, and what works on this machine.

    For what does not work, the command that mends it. What was not loaded is said to be looked up: its
    packages are installed. The exit code is 3 if no runtime works.
    """
    with open_output(json) as output:
        output.line(
            f"edgedet {edgedet.__version__}, Python {platform.python_version()}, {platform.platform()}"
        )
        base = {
            name: _version(name) for name in ("numpy", "opencv-python-headless", "pydantic", "typer", "rich")
        }
        output.line(", ".join(f"{name} {found}" for name, found in base.items()))
        output.line()
        environment = read_environment()
        for line in _processor_lines(environment):
            output.line(line)
        output.line()
        with Bars() as bars, ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
            running = [pool.submit(_examine_runtime, name) for name in registry.RUNTIMES]
            running += [pool.submit(_examine, part, imports=imports) for part in _PARTS]
            for _ in bars(as_completed(running), "Loading what is installed", len(running)):
                pass
            findings = [one.result() for one in running]
        findings.append(_examine_gpu())
        output.table(
            ("part", "for", "works", "found by", "versions", "problem", "fix"),
            [
                (f.name, f.purpose, "yes" if f.works else "no", _how(f), f.versions, f.problem, f.fix)
                for f in findings
            ],
        )
        output.json(
            {
                "edgedet": edgedet.__version__,
                "python": platform.python_version(),
                "platform": platform.platform(),
                "packages": base,
                "processor": _processor_values(environment),
                "rows": [asdict(finding) for finding in findings],
            }
        )
    if not any(finding.works for finding in findings if finding.purpose == "runtime"):
        raise typer.Exit(3)


def _processor_lines(environment: Environment) -> tuple[str, ...]:
    found = environment.processor
    assert found is not None
    return (
        f"{environment.cpu}, {environment.cores} cores; {found.summary}",
        f"INT8 speed: {found.speed}",
        f"INT8 exactness: {found.exactness}",
    )


def _processor_values(environment: Environment) -> dict[str, Any]:
    found = environment.processor
    assert found is not None
    return {
        "cpu": environment.cpu,
        **found.model_dump(mode="json"),
        "saturates": found.saturates,
        "speed": found.speed,
        "exactness": found.exactness,
    }


def _how(finding: _Finding) -> str:
    return {"asked": "asking it", "loaded": "loading it", "looked up": "looking it up"}[finding.how]


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return _NOT_INSTALLED


def _examine_runtime(name: str) -> _Finding:
    entry = registry.RUNTIMES.entry(name)
    fix = registry.install_command(entry.extra)
    try:
        done = _output_of([sys.executable, "-c", _LOAD_RUNTIME, name])
    except subprocess.TimeoutExpired:
        return _Finding(name, "runtime", False, "", f"it did not load in {_TIMEOUT_S} s", fix)
    if done.returncode:
        return _Finding(name, "runtime", False, "", _what_ended(done), fix)
    found = json_format.loads(done.stdout.splitlines()[-1])
    problem = found["problem"]
    return _Finding(name, "runtime", not problem, found["version"], problem, found["fix"])


def _what_ended(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"the import crashed with signal {-done.returncode}"
    return (done.stderr.strip().splitlines() or ["the import failed"])[-1][:160]


def _examine(part: _Part, *, imports: bool) -> _Finding:
    versions = ", ".join(f"{name} {_version(name)}" for name in part.packages.values())
    missing = [name for name in part.packages.values() if _version(name) == _NOT_INSTALLED]
    is_loaded = imports or not part.is_large
    found = _import_problem if is_loaded else _lookup_problem
    problem = f"{missing[0]} is not installed" if missing else found(tuple(part.packages))
    fix = registry.install_command(part.extra) if problem else ""
    how: _How = "loaded" if is_loaded and not missing else "looked up"
    return _Finding(part.name, part.purpose, not problem, versions, problem, fix, how)


def _lookup_problem(modules: Sequence[str]) -> str:
    """The first of the modules that Python would not find, or ""; nothing is imported."""
    missing = [module for module in modules if find_spec(module) is None]
    return f"no Python package {missing[0]!r}" if missing else ""


def _import_problem(modules: Sequence[str]) -> str:
    """Why one of the modules cannot be imported here, or "".

    They are imported in one process, which says before each which it is.
    """
    program = "; ".join(f"print({module!r}, flush=True); import {module}" for module in modules)
    try:
        done = _output_of([sys.executable, "-c", program])
    except subprocess.TimeoutExpired:
        return f"the imports did not end in {_TIMEOUT_S} s"
    if not done.returncode:
        return ""
    reached = [line for line in done.stdout.splitlines() if line in modules][-1]
    return f"{reached}: {_what_ended(done)}"


def _examine_gpu() -> _Finding:
    """The NVIDIA GPU that TensorRT and training may use; its absence hinders nothing else."""

    def found(versions: str, problem: str, fix: str) -> _Finding:
        return _Finding("gpu", "TensorRT, training", not problem, versions, problem, fix, "asked")

    if shutil.which("nvidia-smi") is None:
        return found("", "no nvidia-smi", "install the NVIDIA driver, on a GPU")
    done = _output_of(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])
    if done.returncode:
        problem = (done.stdout.strip() or "nvidia-smi failed").splitlines()[0][:160]
        return found("", problem, "check the NVIDIA driver")
    return found("; ".join(done.stdout.strip().splitlines()), "", "")


def _output_of(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
