"""PyTorch on one thread.

Sums of floats depend on how many threads share them, and the integers of a calibration on those sums. Threads
that wait for each other also lose most of their time where another process wants the same cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Have PyTorch compute on one thread, so that a machine with more cores gives the same integers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
