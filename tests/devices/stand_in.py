"""A device without a network: `ssh` is a script that runs the command here, with a cache of its own."""

from __future__ import annotations

import os
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
    def is_clean(self) -> bool:
        """Whether nothing is left there; what disappears meanwhile is gone."""
        return not any(folders or files for _, folders, files in os.walk(self.cache))

    @property
    def sessions(self) -> list[Path]:
        folder = self.cache / "edgedet" / "device"
        names = os.listdir(folder) if folder.exists() else []
        return [folder / name for name in names if name != "blobs"]
