"""The machine that a measurement was made on, as far as it can be read without asking anyone."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path

from edgedet.processor import Processor, read_processor
from edgedet.spec import Value

_PACKAGES = (
    "edgedet",
    "ai-edge-litert",
    "numpy",
    "onnxruntime",
    "opencv-python-headless",
    "openvino",
    "tensorrt",
    "tensorrt-rtx-cu12-libs",
    "tflite-runtime",
    "torch",
)
_CPU_FREQUENCY = Path("/sys/devices/system/cpu/cpu0/cpufreq")


class Environment(Value):
    """Hardware and software of a measurement; what cannot be read is empty or None.

    Attributes:
        cpu: Model of the processor, or of the board where the processor has no name.
        cores: Logical cores that this process may use.
        os: Operating system and its release.
        python: Version of Python.
        packages: Versions of what takes part, where installed.
        governor: The kernel's frequency governor: anything but "performance" lets the clock vary.
        max_mhz: Highest clock of the first core.
        processor: Its instructions for integers; None in reports of earlier versions.
    """

    cpu: str
    cores: int
    os: str
    python: str
    packages: dict[str, str]
    governor: str = ""
    max_mhz: float | None = None
    processor: Processor | None = None

    @property
    def int8(self) -> str:
        """What its processor means for INT8, one line; "" where that was not recorded."""
        return "" if self.processor is None else self.processor.description


def usable_cores() -> int:
    """Logical cores that this process may use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_environment() -> Environment:
    """The environment of this process."""
    kilohertz = _first_line(_CPU_FREQUENCY / "cpuinfo_max_freq")
    return Environment(
        cpu=_cpu(),
        cores=usable_cores(),
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        packages=_versions(),
        governor=_first_line(_CPU_FREQUENCY / "scaling_governor"),
        max_mhz=int(kilohertz) / 1000 if kilohertz.isdigit() else None,
        processor=read_processor(),
    )


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    named = re.search(r"^(?:model name|Hardware|Model)\s*:\s*(\S.*)$", text, re.MULTILINE)
    if named:
        return named[1].strip()
    board = _first_line(Path("/proc/device-tree/model")).strip("\0")
    return board or platform.processor() or platform.machine()


def _first_line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").partition("\n")[0].strip()
    except OSError:
        return ""


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
