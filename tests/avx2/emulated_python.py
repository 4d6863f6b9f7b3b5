"""This machine's Python on an emulated processor that has AVX2 and no VNNI.

The interpreter is one of a virtual environment of its own, a script that starts qemu: so it is what
`sys.executable` names there, and what a process there starts in turn is emulated as well.
"""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

# What qemu cannot do of that processor, no program asks for; named, it would be warned of.
CPU = "Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid"
_QEMU = "qemu-x86_64-static"


class CannotEmulateError(Exception):
    """Why there can be no emulated processor on this machine; tests that need one are skipped with it."""


def write_python(folder: Path) -> Path:
    """Write the environment into an empty folder; returns the path of its Python.

    Raises:
        CannotEmulateError: This machine cannot run it.
    """
    qemu = shutil.which(_QEMU)
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise CannotEmulateError("no emulated AVX2: it takes Linux on x86-64")
    if qemu is None:
        raise CannotEmulateError(f"no emulated AVX2: {_QEMU} not found; apt-get install qemu-user-static")
    base = Path(sys._base_executable)  # type: ignore[attr-defined]
    of_system = str(sys.prefix == sys.base_prefix).lower()
    (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = {of_system}\n")
    (folder / "lib").symlink_to(Path(sys.prefix) / "lib")
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {qemu} -cpu {CPU} -0 "$0" {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python
