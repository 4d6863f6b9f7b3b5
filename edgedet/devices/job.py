"""The process of one job on a device: `python -m edgedet.devices.job FOLDER`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from edgedet import registry
from edgedet.devices.records import Record, RecordWriter, error_header
from edgedet.errors import EdgedetError


class Job(Protocol):
    """What `edgedet.registry.JOBS` holds."""

    def __call__(self, order: Mapping[str, Any], root: Path, write: Callable[[Record], None]) -> None:
        """Do what the order says with the files of the session's folder, and write what comes of it."""


def main(arguments: list[str]) -> None:
    """Run the job whose folder is given; what edgedet raises is its last record."""
    folder = Path(arguments[0])
    order = json.loads((folder / "order").read_bytes())
    writer = RecordWriter(folder / "records")
    job: Job = registry.JOBS.load(order["kind"])
    try:
        job(order["job"], folder.parents[1], writer.write)
    except EdgedetError as exc:
        writer.write(Record(error_header(exc)))


if __name__ == "__main__":
    main(sys.argv[1:])
