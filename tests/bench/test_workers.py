"""How a worker is listened to: what it may answer, and what is left when nobody waits for it any more."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgedet.bench.worker import executed
from edgedet.bench.workers import Order, Worker
from edgedet.devices.records import error_header
from edgedet.errors import EdgedetError, InternalError, VendorError


def answering(answer: dict[str, object]) -> Worker:
    """A worker that gives one answer, whatever it is asked, and ends."""
    worker = Worker.__new__(Worker)
    worker.order = Order(Path("bundle"), "ort", "int8", 1, Path("images.npz"))
    worker._stderr = tempfile.TemporaryFile()  # noqa: SIM115
    program = f"input(); print({json.dumps(answer)!r})"
    worker._process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return worker


@pytest.mark.parametrize("error", [VendorError, InternalError])
def test_an_error_of_a_worker_is_raised_as_it_was(error: type[EdgedetError]):
    said = error_header(error("it failed", got="a", expected="b", fix="c"))
    with answering(said) as worker, pytest.raises(error, match="it failed; got a; expected b") as raised:
        worker.measure(0.1)
    assert type(raised.value) is error


def test_a_graph_that_cannot_be_read_is_an_error_with_its_cause_at_both_ends():
    def fail() -> None:
        raise VendorError("no profile", got="a", expected="b", fix="c")

    runtime = SimpleNamespace(executed=fail)
    said = executed(SimpleNamespace(runtime=runtime))
    with answering(said) as worker, pytest.raises(VendorError, match="no profile; got a"):
        worker.executed()


def test_a_runtime_that_does_not_tell_what_it_executes_is_no_error():
    said = executed(SimpleNamespace(runtime=SimpleNamespace(executed=lambda: None)))
    with answering(said) as worker:
        assert worker.executed() is None


@pytest.mark.parametrize("name", ["AnErrorOfALaterVersionError", "annotations"])
def test_a_name_that_is_no_error_of_edgedet_is_an_internal_error_with_what_was_said(name: str):
    said = {"error": name, "summary": "it failed", "got": "a", "expected": "b", "fix": "c"}
    with answering(said) as worker, pytest.raises(InternalError, match="it failed; got a; expected b"):
        worker.measure(0.1)


class _Interrupted:
    """The end of a worker's answers at which ^C arrives."""

    def __init__(self) -> None:
        self.waiting: list[threading.Timer] = []

    def readline(self) -> str:
        self.waiting = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
        raise KeyboardInterrupt


def test_an_interrupt_while_a_worker_is_waited_for_leaves_no_timer_that_would_hold_the_exit():
    interrupted = _Interrupted()
    with answering({}) as worker:
        answers, worker._process.stdout = worker._process.stdout, interrupted
        with pytest.raises(KeyboardInterrupt):
            worker.measure(0.1)
        worker._process.stdout = answers
    (deadline,) = interrupted.waiting
    held = not deadline.finished.is_set()
    deadline.cancel()
    assert not held
    assert deadline.daemon
