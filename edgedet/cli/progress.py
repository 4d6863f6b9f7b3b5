"""Progress on standard error: bars on a terminal, lines elsewhere, and a line for each stage's seconds.

Where no bar is drawn, and in a log, a line is written at least every ten seconds, unless a library holds the
interpreter for longer: a job in the background that is silent for minutes looks like one that hangs.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self, TextIO, TypeVar

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from edgedet.files import check_writable
from edgedet.text import shown

T = TypeVar("T")

LogOption = Annotated[
    Path | None,
    typer.Option("--log", metavar="FILE", help="Write progress here: a line for each stage, and every 10 s."),
]

# A stage is announced, and bars are drawn, when it has taken so long; a shorter one than that has no line.
_DELAY_S = 1.0
_SHOWN_S = 0.1
# Far less than ten: a converter that keeps the interpreter to itself holds up the thread that writes.
_SILENCE_S = 5.0
_TICK_S = 0.5


class Bars:
    """An `edgedet.progress.Track`; a context manager, one for a command, stages may nest.

    Args:
        console: Where progress is shown; standard error when not given.
        log: A file that takes the lines as well.

    Raises:
        UsageError: The log cannot be written.
    """

    def __init__(self, console: Console | None = None, log: Path | None = None) -> None:
        self._opened = _standard_error() if console is None else None
        self._console = console = console or Console(file=self._opened or sys.stderr)
        self._lines = _Lines(console, log)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._timer = threading.Timer(_DELAY_S, self._progress.start)
        self._timer.daemon = True

    def say(self, sentence: str) -> None:
        """Print a line above the bars."""
        self._console.print(shown(f"edgedet: {sentence}"), markup=False, highlight=False, soft_wrap=True)
        self._lines.note(sentence)

    def __enter__(self) -> Self:
        self._lines.start()
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._timer.join()
        self._progress.stop()
        self._lines.stop()
        if self._opened is not None:
            self._opened.close()

    def __call__(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield the items and show how far they have come."""
        known = len(items) if total is None and isinstance(items, Sized) else total
        with self._stage(description, known) as (stage, task):
            for item in items:
                yield item
                stage.done += 1
                self._progress.advance(task)
            stage.is_whole = True

    @contextmanager
    def step(self, description: str) -> Iterator[None]:
        """A stage that cannot be counted."""
        with self._stage(description, None) as (stage, _):
            yield
            stage.is_whole = True

    @contextmanager
    def _stage(self, description: str, total: int | None) -> Iterator[tuple[_Stage, TaskID]]:
        stage = _Stage(description, total, time.monotonic())
        task = self._progress.add_task(description, total=total)
        self._lines.open(stage)
        try:
            yield stage, task
        finally:
            self._progress.remove_task(task)
            self._lines.close(stage)


def _standard_error() -> TextIO | None:
    """A stream of its own to standard error, which converters set aside; None where that is no descriptor."""
    try:
        descriptor = sys.stderr.fileno()
    except OSError:  # replaced by an object without a file, as in tests and notebooks
        return None
    return os.fdopen(os.dup(descriptor), "w", encoding="utf-8", buffering=1)


@dataclass(eq=False, slots=True)
class _Stage:
    """How far a stage has come: `done` of `total` things, which is None where nobody knows."""

    label: str
    total: int | None
    began: float
    done: int = 0
    is_announced: bool = False
    is_whole: bool = False

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    @property
    def place(self) -> str:
        count = f" {self.done}/{self.total}" if self.total is not None else f" {self.done}" * bool(self.done)
        return f"{self.label}{count}"


class _Lines:
    """Lines with the seconds since the first; a thread writes one where nothing else did for some seconds.

    On a terminal, bars show what is under way, so that it gets the finished stages only.
    """

    def __init__(self, console: Console, log: Path | None) -> None:
        if log is not None:
            check_writable(log)
        self._console, self._path = console, log
        self._log: TextIO | None = None
        self._began = self._written = time.monotonic()
        self._open: list[_Stage] = []
        self._lock = threading.RLock()  # a collected generator closes its stage in any thread
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._log = self._path.open("w", encoding="utf-8", buffering=1)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        if self._log is not None:
            self._log.close()

    def open(self, stage: _Stage) -> None:
        with self._lock:
            self._open.append(stage)

    def close(self, stage: _Stage) -> None:
        with self._lock:
            self._open.remove(stage)
            if self._ended.is_set():  # of a generator that nobody had closed
                return
            if stage.is_announced or stage.seconds >= _SHOWN_S:
                how = "done" if stage.is_whole or stage.done == stage.total else "ended"
                self._write(f"{stage.place}: {how} in {stage.seconds:.1f} s", to_terminal=True)

    def note(self, sentence: str) -> None:
        """A sentence that was shown already, for the log alone."""
        with self._lock:
            self._write_log(sentence)

    def _watch(self) -> None:
        while not self._ended.wait(_TICK_S):
            with self._lock:
                for stage in list(self._open):
                    if not stage.is_announced and stage.seconds >= _DELAY_S:
                        stage.is_announced = True
                        self._write(f"{stage.place} ...")
                if time.monotonic() - self._written >= _SILENCE_S:
                    self._write(self._under_way())

    def _under_way(self) -> str:
        if not self._open:
            return "still working"
        return f"{', '.join(stage.place for stage in self._open)} ({self._open[-1].seconds:.0f} s)"

    def _write(self, text: str, *, to_terminal: bool = False) -> None:
        line = self._write_log(text)
        if to_terminal or not self._console.is_terminal:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _write_log(self, text: str) -> str:
        """The line, which begins with the seconds since the first."""
        self._written = time.monotonic()
        line = shown(f"[{self._written - self._began:6.1f} s] {text}")
        if self._log is not None:
            self._log.write(line + "\n")
        return line
