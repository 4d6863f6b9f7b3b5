"""The other end of `cold`: fresh processes, one after the other, and their medians."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

from edgedet.bench.report import ColdStart
from edgedet.bench.workers import Order

_LIMIT_S = 600.0


def measure_cold_start(order: Order, processes: int) -> ColdStart | str:
    """Medians over fresh processes, one after the other, or why one of them failed.

    Args:
        order: What each opens.
        processes: How many, 1 or more.
    """
    found = []
    for _ in range(processes):
        marks = _one(order)
        if isinstance(marks, str):
            return marks
        found.append(marks)
    medians = {name: round(statistics.median(marks[name] for marks in found), 1) for name in found[0]}
    return ColdStart(processes=processes, **medians)


def _one(order: Order) -> dict[str, float] | str:
    # The clock of the day is the one that both processes share on every system.
    started = time.time()
    command = [sys.executable, "-m", "edgedet.bench.cold", order.to_json(), repr(started)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=True)
        marks: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return f"no detections after {_LIMIT_S:g} s"
    except subprocess.CalledProcessError as exc:
        return f"exit status {exc.returncode}: {' '.join(exc.stderr.split())[-300:]}"
    except (OSError, ValueError, IndexError) as exc:
        return f"{type(exc).__name__}: {exc}"
    return marks
