"""What a job writes for the host: numbered records of JSON and arrays."""

from __future__ import annotations

import io
import json
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedet import errors
from edgedet.errors import EdgedetError, InternalError, MissingExtraError
from edgedet.registry import packages_of_extras

# A job that is so far ahead of its host waits: a device may have little room.
_MOST_BYTES = 64 * 2**20
_POLL_S = 0.02

_HEADER = "header"


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One record.

    Attributes:
        header: Plain JSON.
        arrays: By name.
    """

    header: dict[str, Any]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """As an .npz file, which holds the header as text."""
        file = io.BytesIO()
        text = np.frombuffer(json.dumps(self.header).encode(), np.uint8)
        np.savez(file, allow_pickle=False, **{_HEADER: text}, **{f"_{k}": v for k, v in self.arrays.items()})
        return file.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> Record:
        """Read what `to_bytes` gave.

        Raises:
            InternalError: It is something else.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                header = dict(json.loads(file[_HEADER].tobytes()))
                return Record(header, {name[1:]: file[name] for name in file.files if name != _HEADER})
        except Exception as exc:  # of zipfile, zlib, json and numpy, whatever they make of broken bytes
            raise InternalError(
                "cannot read what a job on the device wrote",
                got=f"{len(data)} bytes: {exc}",
                expected="a record",
                fix="run again; report it if it stays",
            ) from exc


class RecordWriter:
    """Writes a job's records, each whole or not there.

    Args:
        folder: Where the agent looks for them; it removes those that the host has.
        most_bytes: Written ahead of the host at most, but for one record.
    """

    def __init__(self, folder: Path, most_bytes: int = _MOST_BYTES) -> None:
        self._folder, self._most_bytes = folder, most_bytes
        self._count, self._bytes = 0, 0
        self._ahead: deque[tuple[Path, int]] = deque()

    def write(self, record: Record) -> None:
        """Write the next record, once there is room for it."""
        data = record.to_bytes()
        while self._ahead and self._bytes + len(data) > self._most_bytes:
            path, size = self._ahead[0]
            if path.exists():
                time.sleep(_POLL_S)
                continue
            self._ahead.popleft()
            self._bytes -= size
        path = self._folder / str(self._count)
        temporary = path.with_name(f"{path.name}.new")
        temporary.write_bytes(data)
        temporary.replace(path)
        self._count += 1
        self._bytes += len(data)
        self._ahead.append((path, len(data)))


def error_header(error: EdgedetError) -> dict[str, Any]:
    """An exception as JSON."""
    parts = {"summary": error.summary, "got": error.got, "expected": error.expected, "fix": error.fix}
    return {"error": type(error).__name__, **parts}


def error_from(header: Mapping[str, Any], where: str = "") -> EdgedetError:
    """The exception that `error_header` was given, told of the device `where`."""
    kind = getattr(errors, str(header["error"]), InternalError)
    known = isinstance(kind, type) and issubclass(kind, EdgedetError)
    fix = header["fix"]
    if where and kind is MissingExtraError:  # what it says to install is for a machine that has edgedet
        packages = " ".join(packages_of_extras(fix))
        fix = f"install {packages or 'what it needs'} for its Python, or leave it out with --runtimes"
    error: EdgedetError = (kind if known else InternalError)(
        f"{where}: {header['summary']}" if where else header["summary"],
        got=header["got"],
        expected=header["expected"],
        fix=fix,
    )
    return error
