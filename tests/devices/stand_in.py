"""A device without a network: `ssh` is a script that runs the command here, with a cache of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgedet.devices import Address

SSH = """#!/bin/sh
for last; do :; done
export XDG_CACHE_HOME="{cache}" PYTHONPATH=""
echo "words of a login shell"
exec sh -c "exec $last"
"""


@dataclass(frozen=True)
class StandIn:
    """Where the device is, and where it keeps what it gets."""

    address: Address
    cache: Path

    @property
    def sessions(self) -> list[Path]:
        folder = self.cache / "edgedet" / "device"
        return [path for path in folder.iterdir() if path.name != "blobs"] if folder.exists() else []
