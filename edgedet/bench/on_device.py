"""What the benchmark runs on a device: the whole of it, as it runs here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any, TypeVar

from edgedet.bench.run import run_benchmark
from edgedet.data import open_dataset
from edgedet.devices.records import Record

T = TypeVar("T")

_SHOWN_EVERY_S = 0.5


def benchmark(order: Mapping[str, Any], root: Path, write: Callable[[Record], None]) -> None:
    """Write how far it is, what is announced, and at last the report.

    Args:
        order: `source`, a bundle or an artifact; `images`, a folder, or "" for those of edgedet; `options`
            of `run_benchmark`.
        root: What paths are relative to.
        write: Takes the records.
    """
    report = run_benchmark(
        root / order["source"],
        dataset=open_dataset(root / order["images"]) if order["images"] else None,
        track=_Progress(write),
        announce=lambda text: write(Record({"announced": text})),
        **order["options"],
    )
    write(Record({"report": report.model_dump(mode="json")}))


class _Progress:
    """A `Track` that a host hears of, now and then."""

    def __init__(self, write: Callable[[Record], None]) -> None:
        self._write = write
        self._shown_at = 0.0

    def __call__(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield the items."""
        known = len(items) if total is None and isinstance(items, Sized) else total
        self._show(description, 0, known, always=True)
        for number, item in enumerate(items):
            yield item
            self._show(description, number + 1, known)

    def _show(self, description: str, done: int, total: int | None, *, always: bool = False) -> None:
        now = time.monotonic()
        if always or done == total or now - self._shown_at > _SHOWN_EVERY_S:
            self._shown_at = now
            self._write(Record({"progress": description, "done": done, "total": total}))
