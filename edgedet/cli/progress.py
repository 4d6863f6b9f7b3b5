"""Progress bars on standard error: only on a terminal, and only for work of more than a second."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

_DELAY_S = 1.0


class Bars:
    """An `edgedet.progress.Track`; a context manager, one for a command, bars may nest.

    Args:
        console: Where bars are drawn; standard error when not given.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console = console or Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
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
        self._console.print(f"edgedet: {sentence}", markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._timer.join()
        self._progress.stop()

    def __call__(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield the items and draw how far they have come."""
        known = len(items) if total is None and isinstance(items, Sized) else total
        task = self._progress.add_task(description, total=known)
        try:
            for item in items:
                yield item
                self._progress.advance(task)
        finally:
            self._progress.remove_task(task)
