"""Devices without a network: `ssh` and `adb` are scripts that run the command here; a machine is a folder."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from edgedet.devices import Address, parse_address

# What the two are named after: the last of their words runs there. Any other host is the machine `camera`.
_RUN = """
[ -d "{machines}/$host" ] || host=camera
if [ -s "{trouble}" ]; then cat "{trouble}" >&2; rm "{trouble}"; exit 255; fi
. "{machines}/$host.environment"
echo "words of a login shell"
exec sh -c "exec $line"
"""
PROGRAMS = {
    "ssh": """#!/bin/sh
while [ "$1" != -- ]; do shift; done
host="${{2##*@}}" line=$3
"""
    + _RUN,
    "adb": """#!/bin/sh
[ $# = 5 ] && [ "$1 $3 $4" = "-s shell -T" ] || {{ echo "adb: unknown command $*" >&2; exit 1; }}
host=$2 line=$5
"""
    + _RUN,
}
ADDRESSES = {"ssh": "ssh://pi@{}", "adb": "adb://{}"}


@dataclass(frozen=True)
class StandIn:
    """Where the device is, and where it keeps what it gets."""

    address: Address
    cache: Path

    @property
    def is_clean(self) -> bool:
        """Whether nothing is left there; what disappears meanwhile is gone."""
        return not any(folders or files for _, folders, files in os.walk(self.cache))

    @property
    def sessions(self) -> list[Path]:
        folder = self.cache / "edgedet" / "device"
        names = os.listdir(folder) if folder.exists() else []
        return [folder / name for name in names if name != "blobs"]


class Lab:
    """Machines, and the programs that lead to them.

    Args:
        root: An empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.programs = root / "bin"
        # A name of a socket has 107 bytes.
        self._number = hashlib.sha256(str(root).encode()).hexdigest()[:16]
        self._machines, self._trouble = root / "machines", root / "trouble"
        self.programs.mkdir()
        self._machines.mkdir()
        for name, text in PROGRAMS.items():
            script = self.programs / name
            script.write_text(text.format(machines=self._machines, trouble=self._trouble))
            script.chmod(0o755)

    def machine(
        self, name: str = "camera", transport: str = "ssh", python: str = sys.executable, of: str = ""
    ) -> StandIn:
        """A machine of that name; with `of`, that other machine as a second user has it."""
        cache = self._machines / name
        cache.mkdir(exist_ok=True)
        (self._machines / f"{name}.environment").write_text(
            f'export XDG_CACHE_HOME="{cache}" PYTHONPATH="" EDGEDET_MACHINE="{self._number}/{of or name}"\n'
        )
        return StandIn(parse_address(f"{ADDRESSES[transport].format(name)}?python={python}"), cache)

    def fail_once(self, words: str) -> None:
        """Have the next command that leads anywhere end with these words."""
        self._trouble.write_text(words + "\n")
