"""Instructions of the processor that decide the speed and the exactness of INT8.

Linux names them in /proc/cpuinfo, macOS in sysctl, and numpy asks the processor itself (CPUID). In a process
that is emulated by QEMU, /proc/cpuinfo describes the host; only what both sources name is then there.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from edgedet.spec import Value

_X86 = ("amd64", "i386", "i686", "x86_64")
_ARM = ("aarch64", "arm", "arm64")
_CPUINFO = Path("/proc/cpuinfo")


class _Names(NamedTuple):
    """What an instruction set is called by people, /proc/cpuinfo, numpy (None: unknown to it) and sysctl."""

    title: str
    cpuinfo: str
    numpy: str | None
    sysctl: str


# By the fields of `Processor`.
_X86_NAMES = {
    "avx2": _Names("AVX2", "avx2", "AVX2", "avx2_0"),
    "avx512": _Names("AVX-512", "avx512bw", "AVX512BW", "avx512bw"),
    "avx512_vnni": _Names("AVX-512 VNNI", "avx512_vnni", "AVX512VNNI", "avx512vnni"),
    "avx_vnni": _Names("AVX-VNNI", "avx_vnni", None, "avxvnni"),
    "amx_int8": _Names("AMX", "amx_int8", None, "amx_int8"),
}
_ARM_NAMES = {
    "dotprod": _Names("dotprod", "asimddp", "ASIMDDP", "arm.FEAT_DotProd"),
    "i8mm": _Names("i8mm", "i8mm", None, "arm.FEAT_I8MM"),
}
# A flag that numpy misses shows that /proc/cpuinfo is another processor's. Every one with AVX-VNNI has VAES.
_WITNESSES = {"avx2": "AVX2", "avx512bw": "AVX512BW", "avx512_vnni": "AVX512VNNI", "vaes": "VAES"}


class Processor(Value):
    """Instructions that integer kernels use. None is unknown: this machine does not tell.

    Attributes:
        architecture: As Python calls the machine, such as x86_64, aarch64 or arm64.
        avx2: 256-bit integers (x86).
        avx512: 512-bit integers, AVX-512 BW (x86).
        avx512_vnni: Dot products of four bytes in 512 bits (x86).
        avx_vnni: The same in 256 bits (x86).
        amx_int8: Tiles of dot products (x86).
        dotprod: Dot products of four bytes, SDOT and UDOT (ARM).
        i8mm: Products of 2x8 matrices of bytes, SMMLA and USDOT (ARM).
    """

    architecture: str
    avx2: bool | None = False
    avx512: bool | None = False
    avx512_vnni: bool | None = False
    avx_vnni: bool | None = False
    amx_int8: bool | None = False
    dotprod: bool | None = False
    i8mm: bool | None = False

    @property
    def is_x86(self) -> bool:
        """Whether the x86 fields mean anything."""
        return self.architecture.lower() in _X86

    @property
    def is_arm(self) -> bool:
        """Whether the ARM fields mean anything."""
        return self.architecture.lower().startswith(_ARM)

    @property
    def vnni(self) -> bool | None:
        """Whether it has VNNI of either width; None where that is unknown."""
        return _either(self.avx512_vnni, self.avx_vnni)

    @property
    def saturates(self) -> bool | None:
        """Whether sums of two products saturate at 16 bits (`edgedet.saturation`): x86 without VNNI."""
        if not self.is_x86:
            return False if self.is_arm else None
        return None if self.vnni is None else not self.vnni

    @property
    def summary(self) -> str:
        """One line: what is there, what is not, what is unknown."""
        by_state: dict[bool | None, list[str]] = {True: [], False: [], None: []}
        for field, names in _names_of(self).items():
            by_state[getattr(self, field)].append(names.title)
        parts = [
            f"{word}{', '.join(titles)}"
            for word, titles in (
                ("", by_state[True]),
                ("no ", by_state[False]),
                ("unknown: ", by_state[None]),
            )
            if titles
        ]
        return f"{self.architecture}: {'; '.join(parts) or 'no instructions that edgedet looks for'}"

    @property
    def speed(self) -> str:
        """A sentence on the speed of INT8."""
        if self.is_x86:
            return _X86_SPEED[self.vnni]
        if self.is_arm:
            return _ARM_SPEED[_either(self.dotprod, self.i8mm)]
        return f"nothing was measured on {self.architecture}: `edgedet benchmark` tells whether INT8 pays"

    @property
    def exactness(self) -> str:
        """A sentence on the sums of INT8 kernels."""
        if not (self.is_x86 or self.is_arm):
            return f"nothing is known of INT8 kernels on {self.architecture}"
        if self.saturates is None:
            return f"unknown whether this x86 has VNNI; without it {_SATURATION}"
        if self.saturates:
            return f"without VNNI {_SATURATION}"
        return "no sum of an INT8 kernel saturates here"

    @property
    def description(self) -> str:
        """One line: the instructions, and what follows for speed and exactness."""
        return f"{self.summary}; {self.speed}; {self.exactness}"


_SATURATION = (
    "ONNX Runtime and OpenVINO add two products in 16 bits, which saturate unless the weights leave room; "
    "LiteRT does not"
)
_X86_SPEED = {
    True: "VNNI multiplies four bytes where float multiplies one number: INT8 pays in every runtime",
    False: "without VNNI INT8 gains less in ONNX Runtime and OpenVINO, and little or nothing in LiteRT",
    None: "unknown whether this x86 has VNNI; without it INT8 gains little or nothing in LiteRT",
}
_ARM_SPEED = {
    True: "dotprod multiplies four bytes where float multiplies one number: INT8 should pay (not measured)",
    False: "without dotprod INT8 kernels multiply in 16 bits: the gain is smaller (not measured)",
    None: "unknown whether this ARM has dotprod, without which INT8 gains less (not measured)",
}


def read_processor() -> Processor:
    """The processor as this process may use it."""
    machine = platform.machine()
    if platform.system() == "Darwin":
        return processor_of_sysctl(machine, _sysctl())
    try:
        cpuinfo = _CPUINFO.read_text(errors="replace")
    except OSError:
        cpuinfo = ""
    return processor_of_cpuinfo(machine, cpuinfo, _numpy_features())


def processor_of_cpuinfo(machine: str, cpuinfo: str, features: Mapping[str, bool]) -> Processor:
    """The processor of a Linux machine, or of any other where numpy alone tells.

    Args:
        machine: As `platform.machine()` calls it.
        cpuinfo: Text of /proc/cpuinfo, "" where there is none.
        features: numpy's, by its names; empty where it does not tell.
    """
    named = Processor(architecture=machine)
    flags = _flags(cpuinfo, "flags" if named.is_x86 else "Features")
    is_foreign = flags is not None and any(
        flag in flags and features.get(feature) is False for flag, feature in _WITNESSES.items()
    )
    found: dict[str, bool | None] = {}
    for field, names in _names_of(named).items():
        known = None if names.numpy is None else features.get(names.numpy)
        if flags is not None:
            known = names.cpuinfo in flags and (not is_foreign if known is None else known)
        found[field] = known
    return named.model_copy(update=found)


def processor_of_sysctl(machine: str, text: str) -> Processor:
    """The processor of a Mac.

    Args:
        machine: As `platform.machine()` calls it.
        text: What `sysctl hw.optional` prints, "" where that failed.
    """
    named = Processor(architecture=machine)
    values = dict(re.findall(r"^hw\.optional\.(\S+):\s*(\d+)$", text, re.MULTILINE))
    found: dict[str, bool | None] = {}
    for field, names in _names_of(named).items():
        found[field] = values[names.sysctl] != "0" if names.sysctl in values else None
    if named.is_x86 and values:
        found["avx_vnni"] = found["amx_int8"] = False  # no Mac has a processor with these
    return named.model_copy(update=found)


def _names_of(processor: Processor) -> dict[str, _Names]:
    return _X86_NAMES if processor.is_x86 else _ARM_NAMES if processor.is_arm else {}


def _either(one: bool | None, other: bool | None) -> bool | None:
    if one or other:
        return True
    return None if one is None or other is None else False


def _flags(cpuinfo: str, key: str) -> set[str] | None:
    """Flags that all cores have: a process may run on any of them. None where no line names flags."""
    lines = re.findall(rf"^{key}\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return set.intersection(*(set(line.split()) for line in lines)) if lines else None


def _numpy_features() -> Mapping[str, bool]:
    """What numpy found by asking the processor; nothing where it was told what to find."""
    if os.environ.get("NPY_DISABLE_CPU_FEATURES") or os.environ.get("NPY_ENABLE_CPU_FEATURES"):
        return {}
    for package in ("numpy._core", "numpy.core"):  # the second before numpy 2
        try:
            umath = import_module(f"{package}._multiarray_umath")
        except ImportError:
            continue
        return dict(getattr(umath, "__cpu_features__", {}))
    return {}


def _sysctl() -> str:
    try:
        done = subprocess.run(
            ["/usr/sbin/sysctl", "hw.optional"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
