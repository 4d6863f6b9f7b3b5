"""The other end of `worker`: a process that measures one artifact when it is asked to."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgedet import errors
from edgedet.bench.stopwatch import Times
from edgedet.errors import EdgedetError, InternalError
from edgedet.spec import Precision


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker opens.

    Attributes:
        path: A bundle or a lone artifact.
        runtime: Name of the runtime.
        precision: Precision of the artifact; None for a lone one.
        threads: CPU threads.
        images: An .npz file of uint8 `[h, w, 3]` images.
    """

    path: Path
    runtime: str
    precision: Precision | None
    threads: int
    images: Path

    def to_json(self) -> str:
        """As the worker reads it."""
        return json.dumps(
            {
                "path": str(self.path),
                "runtime": self.runtime,
                "precision": self.precision,
                "threads": self.threads,
                "images": str(self.images),
            }
        )


class Worker:
    """A running worker that has opened its artifact and is warm.

    Args:
        order: What it opens.

    Raises:
        EdgedetError: What the worker could not do, as it said it.
    """

    def __init__(self, order: Order) -> None:
        self.order = order
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgedet.bench.worker", order.to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
        )
        try:
            opened = self._read()
        except BaseException:
            self.close()
            raise
        self.load_ms: float = opened["load_ms"]
        self.warm_up_frames: int = opened["warm_up_frames"]
        self.stable: bool = opened["stable"]

    def measure(self, seconds: float) -> Times:
        """Times of the frames of so many seconds."""
        return Times(**self._ask({"do": "measure", "seconds": seconds}))

    def peak_rss_mb(self) -> float | None:
        """Largest resident memory of the worker so far."""
        peak: float | None = self._ask({"do": "peak_rss_mb"})["peak_rss_mb"]
        return peak

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # reading then finds out why
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind: type[EdgedetError] = getattr(errors, answer.pop("error"))
            raise kind(answer.pop("summary"), **answer)
        return answer

    def _died(self) -> InternalError:
        self._process.wait()
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip().splitlines()
        return InternalError(
            f"the process that measures {self.order.runtime} {self.order.precision or ''} ended".rstrip(),
            got=f"exit status {self._process.returncode}" + (f", {said[-1][:300]}" if said else ""),
            expected="measurements",
            fix="look whether memory ran out; try fewer runtimes or threads at a time",
        )
