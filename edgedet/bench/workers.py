"""The other end of `worker`: a process that measures one artifact when it is asked to."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgedet.bench.condition import ROOT, Condition
from edgedet.bench.stopwatch import Times
from edgedet.bundle import artifact_name
from edgedet.devices.records import error_from
from edgedet.errors import InternalError
from edgedet.executed import ExecutedGraph
from edgedet.spec import Precision

# So long at most to import, open and warm up, which builds engines with some vendors, and to answer after the
# time that was measured.
_OPEN_LIMIT_S = 600.0
_ANSWER_LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker opens.

    Attributes:
        path: A bundle or a lone artifact.
        runtime: Name of the runtime.
        precision: Precision of the artifact; None for a lone one.
        threads: CPU threads.
        images: An .npz file of uint8 `[h, w, 3]` images.
        system: Where the machine's /sys and /proc are.
        batch: Images of one inference.
    """

    path: Path
    runtime: str
    precision: Precision | None
    threads: int
    images: Path
    system: Path = ROOT
    batch: int = 1

    def to_json(self) -> str:
        """As the worker reads it."""
        return json.dumps(
            {
                "path": str(self.path),
                "runtime": self.runtime,
                "precision": self.precision,
                "threads": self.threads,
                "images": str(self.images),
                "system": str(self.system),
                "batch": self.batch,
            }
        )


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """What a worker measured without a pause.

    Attributes:
        times: Inference by inference.
        seconds: From the first frame to the last.
        condition: The machine right behind the last.
        joules: What the machine used meanwhile, and `energy_source` where that was read; None and "" where
            it does not tell.
    """

    times: Times
    seconds: float
    condition: Condition = field(default_factory=Condition)
    joules: float | None = None
    energy_source: str = ""


class Worker:
    """A running worker that has opened its artifact and is warm.

    Args:
        order: What it opens.

    Attributes:
        load_ms: Opening the artifact, with the import of the runtime.
        warm_up_frames: Frames until the time of one was stable.
        stable: Whether it became so, after each start.
        condition: The machine right behind the last of them.
        peak_rss_mb: Largest resident memory up to the last measurement; None before it, and where the system
            does not say.

    Raises:
        EdgedetError: What the worker could not do, as it said it.
        InternalError: It ended without a word, or did not answer in time.
    """

    def __init__(self, order: Order) -> None:
        self.order = order
        opened = self._start()
        self.load_ms: float = opened["load_ms"]
        self.warm_up_frames: int = opened["warm_up_frames"]
        self.stable: bool = opened["stable"]
        self.condition = Condition.model_validate(opened["condition"])
        self.peak_rss_mb: float | None = None

    def restart(self) -> None:
        """Go on in a new process: where memory happens to lie makes one faster than another.

        Raises:
            EdgedetError: As the class.
        """
        self.close()
        self.stable = self._start()["stable"] and self.stable

    def measure(self, seconds: float, least_frames: int = 1, *, settle: bool = True) -> Turn:
        """Measure for so many seconds and frames at least.

        Args:
            seconds: How long.
            least_frames: How many frames at least, if they take longer; a batch has several.
            settle: Whether another worker had the cores before, so that the first frames are not kept.

        Raises:
            InternalError: The worker has ended, or did not answer in time.
        """
        request = {"seconds": seconds, "frames": least_frames, "settle": settle}
        answer = self._ask(request, seconds + _ANSWER_LIMIT_S * max(1, least_frames / 100))
        self.peak_rss_mb = max(self.peak_rss_mb or 0.0, answer["peak_rss_mb"] or 0.0) or None
        return Turn(
            Times(**answer["times"]),
            answer["seconds"],
            Condition.model_validate(answer["condition"]),
            answer["joules"],
            answer["energy_source"],
        )

    def executed(self) -> ExecutedGraph | None:
        """What the runtime executes; None where it does not tell. Ask last: it opens the artifact again.

        Raises:
            EdgedetError: The runtime could not be asked.
            InternalError: The worker has ended, or did not answer in time.
        """
        graph = self._ask({"executed": True}, _ANSWER_LIMIT_S)["executed"]
        return None if graph is None else ExecutedGraph.model_validate(graph)

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

    def _start(self) -> dict[str, Any]:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgedet.bench.worker", self.order.to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
        )
        try:
            return self._read(_OPEN_LIMIT_S)
        except BaseException:
            self.close()
            raise

    def _ask(self, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # reading then finds out why
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._read(limit_s)

    def _read(self, limit_s: float) -> dict[str, Any]:
        """The next answer; a worker that gives none in time is killed, which ends the waiting for it."""
        assert self._process.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        deadline = threading.Timer(limit_s, give_up)
        deadline.daemon = True  # so that no end of this process waits for it
        deadline.start()
        try:
            line = self._process.stdout.readline()
        finally:
            deadline.cancel()
        if not line:
            raise self._silent(f"no answer in {limit_s:g} s" if late.is_set() else "")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise error_from(answer)
        return answer

    @property
    def _name(self) -> str:
        return artifact_name(self.order.runtime, self.order.precision, self.order.batch)

    def _silent(self, late: str) -> InternalError:
        status = self._process.wait()
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip().splitlines()
        return InternalError(
            f"the process that measures {self._name} ended",
            got=(late or f"exit status {status}") + (f", {said[-1][:300]}" if said else ""),
            expected="measurements",
            fix="look whether memory ran out; try fewer runtimes or threads at a time",
        )
