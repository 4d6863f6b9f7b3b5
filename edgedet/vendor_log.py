"""The one log of NVIDIA's libraries in a process, for the builder and for the runtime of an engine."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any


@cache
def vendor_log(trt: ModuleType) -> Any:
    """A log that keeps warnings and errors off the terminal, and for messages of ours.

    One a process: NVIDIA's libraries go on using the first that they were given.

    Args:
        trt: The vendor's bindings, which the caller has imported.
    """

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.clear()

        def clear(self) -> None:
            """Forget what was said of an earlier graph or engine."""
            self.warnings: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            """Called by the vendor."""
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(msg)
            elif severity == trt.ILogger.WARNING:
                self.warnings.append(msg)

        def __str__(self) -> str:
            return "; ".join(self.errors) or "no reason given"

    return Log()
