"""A second process that converts while this one calibrates, and takes its share of the jobs behind that.

Converters are Python programs that keep one core busy. The process is started as a module and told what to do
in lines of JSON, so that it imports nothing of the caller's program.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

import numpy as np

from edgedet import errors
from edgedet.boxes import Floats
from edgedet.errors import EdgedetError, VendorError
from edgedet.models.config import DetectorConfig
from edgedet.spec import CALIBRATED
from edgedet_export.int8 import Quantization
from edgedet_export.request import ExportRequest
from edgedet_export.sources import Sources, captured_checkpoint
from edgedet_export.targets import load_targets
from edgedet_export.writer import Job, Writer, Written

_TENSORS = "tensors.npz"


class Beside:
    """Jobs that two processes share: this one takes them from the front, the other one from the back.

    Args:
        process: The other process.
        order: What it is told first.
        jobs: What it may begin with.

    Attributes:
        process: The other process.
        given_back: How many jobs it left to this one, because it ended.
    """

    def __init__(self, process: subprocess.Popen[bytes], order: dict[str, Any], jobs: Sequence[Job]) -> None:
        self.process, self._order, self._jobs, self.given_back = process, order, deque(jobs), 0
        self._changed = threading.Condition()
        self._no_more = False
        self._under_way = 0
        self._finished: SimpleQueue[Written | BaseException | None] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def add(self, jobs: Sequence[Job]) -> None:
        """Add the last jobs."""
        with self._changed:
            self._jobs.extend(jobs)
            self._no_more = True
            self._changed.notify()

    def end(self) -> None:
        """Let the thread go, whatever became of the export."""
        with self._changed:
            self._jobs.clear()
            self._no_more = True
            self._changed.notify()

    def take(self) -> Job | None:
        """A job for this process; None where none is left."""
        with self._changed:
            return self._jobs.popleft() if self._jobs else None

    def written(self, *, wait: bool) -> Written | None:
        """What the other process has written since; None where that is nothing.

        Args:
            wait: For what it has under way; it may give that back to be taken here.

        Raises:
            EdgedetError: What a job raised there.
        """
        with self._changed:
            wait = wait and self._under_way > 0
        if not wait and self._finished.empty():
            return None
        found = self._finished.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def _work(self) -> None:
        """Hand over one job after another; a thread of its own, which waits for the answers."""
        is_told = False
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._no_more)
                if not self._jobs:
                    return
                job = self._jobs.pop()
                self._under_way += 1
            try:
                if not is_told:
                    _send(self.process.stdin, self._order)
                    is_told = True
                answer: Written | BaseException | None = _asked(self.process, job)
            except OSError:
                answer = None
            except BaseException as exc:
                answer = exc
            with self._changed:
                self._under_way -= 1
                if answer is None:  # the process is gone: this one does what is left
                    self._jobs.append(job)
                    self.given_back += 1
                self._finished.put(answer)
            if answer is None:
                return


@contextmanager
def beside(
    request: ExportRequest, tensors: Sequence[Floats], folder: Path, jobs: Sequence[Job]
) -> Iterator[Beside]:
    """A second process at work on these jobs; it ends with the block.

    Args:
        request: The export.
        tensors: Those that verify.
        folder: The bundle's.
        jobs: Float ones, which need no calibration.
    """
    with tempfile.TemporaryDirectory(prefix="edgedet-") as temporary:
        np.savez(Path(temporary) / _TENSORS, *tensors)
        order = {
            "checkpoint": str(request.checkpoint),
            "config": request.config.model_dump(mode="json") if request.config else None,
            "folder": str(folder),
            "batches": request.batches,
            "targets": request.targets,
            "compute_capability": request.compute_capability,
            "tensors": str(Path(temporary) / _TENSORS),
        }
        process = subprocess.Popen(
            # Safe path: a file in the working folder is not to be imported for a module of the same name.
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        side = Beside(process, order, jobs)
        try:
            yield side
        finally:
            side.end()
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with suppress(OSError):
                    stream.close()


def _asked(process: subprocess.Popen[bytes], job: Job) -> Written | None:
    """What the other process writes for a job; None where it has ended.

    Raises:
        EdgedetError: What the job raised there.
        RuntimeError: A fault there, with its traceback.
    """
    assert process.stdout is not None
    _send(process.stdin, job.model_dump(mode="json"))
    line = process.stdout.readline()
    if not line.endswith(b"\n"):
        return None
    answer = json.loads(line)
    if "written" in answer:
        return Written.model_validate(answer["written"])
    if "error" in answer:
        kind = getattr(errors, answer["kind"], VendorError)
        raise kind(answer["error"], got=answer["got"], expected=answer["expected"], fix=answer["fix"])
    raise RuntimeError(answer["fault"])


def _send(stream: IO[bytes] | None, value: Any) -> None:
    assert stream is not None
    stream.write(json.dumps(value).encode() + b"\n")
    stream.flush()


def main() -> None:
    """The other process: an order, then a job a line on standard input, and an answer for each."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # converters print, which nobody is to read
    lines: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    order = json.loads(lines.get())
    targets = load_targets(order["targets"], order["compute_capability"])
    writer: Writer | None = None
    while True:
        job = Job.model_validate_json(lines.get())
        try:
            writer = writer or _writer(order)
            sources = writer.sources
            if job.precision in CALIBRATED and sources.quantization is None:
                sources.quantization = Quantization.read(writer.folder)
            answer: dict[str, Any] = {
                "written": writer.write(job, targets[job.target]).model_dump(mode="json")
            }
        except EdgedetError as exc:
            said = {"got": exc.got, "expected": exc.expected, "fix": exc.fix}
            answer = {"error": exc.summary, "kind": type(exc).__name__, **said}
        except Exception:
            answer = {"fault": traceback.format_exc()}
        _send(answers, answer)


def _read(lines: SimpleQueue[bytes]) -> None:
    """Pass lines on, and end the process where nobody waits for it any more."""
    for line in sys.stdin.buffer:
        lines.put(line)
    os._exit(0)


def _writer(order: dict[str, Any]) -> Writer:
    config = None if order["config"] is None else DetectorConfig.model_validate(order["config"])
    with np.load(order["tensors"]) as file:
        tensors = [file[name] for name in file.files]
    sources = Sources(captured_checkpoint(Path(order["checkpoint"]), config))
    return Writer(sources, tensors, Path(order["folder"]), tuple(order["batches"]))


if __name__ == "__main__":
    main()
