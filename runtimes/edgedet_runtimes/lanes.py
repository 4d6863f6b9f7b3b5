"""Several openings of one artifact, so that the threads of an application run side by side.

What a vendor opened holds the tensors of one inference. A thread takes one that is free, or opens a further
one while cores are left, or waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from edgedet.environment import usable_cores

Opened = TypeVar("Opened")


class Lanes(Generic[Opened]):
    """Openings of one artifact, each of which serves one thread at a time.

    Args:
        open_one: Opens the artifact; called once here, and later from any thread.
        most: Openings at most.
    """

    def __init__(self, open_one: Callable[[], Opened], most: int) -> None:
        self._open_one, self._free = open_one, [open_one()]
        self._slots = threading.Semaphore(most)

    @contextmanager
    def one(self) -> Iterator[Opened]:
        """An opening that no other thread has meanwhile."""
        with self._slots:
            try:
                lane = self._free.pop()  # the one that was used last, which is in the cache
            except IndexError:
                lane = self._open_one()
            try:
                yield lane
            finally:
                self._free.append(lane)


def inferences_side_by_side(threads: int | None) -> int:
    """How many inferences the cores can compute at once, at least 1.

    Args:
        threads: Of each; None for all cores.
    """
    cores = usable_cores()
    return max(1, cores // (threads or cores))
