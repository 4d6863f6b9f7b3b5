"""What workers would have measured, made up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgedet.bench.condition import Condition
from edgedet.bench.rows import Measured
from edgedet.bench.stopwatch import Times
from edgedet.bench.workers import Turn


def turn(inference_ms: Sequence[float], host_ms: float = 0.0, **changes: Any) -> Turn:
    """A turn of frames with these times in the runtime, and half of the others before and behind it."""
    count = len(inference_ms)
    host = [host_ms / 2] * count
    times = Times(host, list(inference_ms), list(host), [changes.pop("objects", 3)] * count)
    seconds = changes.pop("seconds", sum(times.total_ms) / 1e3)
    return Turn(times, seconds, changes.pop("condition", Condition()), **changes)


def measured(
    runtime: str = "ort",
    precision: Any = "fp32",
    threads: int = 1,
    inference_ms: Sequence[float] = (8.0,),
    frames: int = 100,
    **changes: Any,
) -> Measured:
    """What one worker measured: two turns with these times again and again, unless `turns` are given."""
    own = turn([*inference_ms] * (frames // len(inference_ms) // 2), host_ms=2.0)
    turns = tuple(changes.pop("turns", (own, own)))
    ends = tuple(changes.pop("ends_s", [1.0 + index for index in range(len(turns))]))
    fixed = {"model_bytes": 10, "load_ms": 1.0, "warm_up_frames": 5, "stable": True, "peak_rss_mb": 50.0}
    return Measured(runtime, precision, threads, turns=turns, ends_s=ends, **{**fixed, **changes})
