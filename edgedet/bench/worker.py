"""The process that holds one artifact and measures when it is told to: `python -m edgedet.bench.worker JSON`.

One process an artifact makes peak memory its own, and keeps the thread pools of one vendor, which spin for a
while after each run, from the cores of another. Requests and answers are lines of JSON on standard input and
output; what a vendor prints goes to standard error.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any, TextIO, cast

import cv2
import numpy as np

from edgedet.bench.condition import joules_between, read_condition, read_energy
from edgedet.bench.stopwatch import Stopwatch
from edgedet.devices.records import error_header
from edgedet.errors import EdgedetError
from edgedet.executed import ExecutedGraph
from edgedet.pipeline import Pipeline, load


def main(arguments: list[str]) -> None:
    """Serve until standard input ends; the one argument is `edgedet.bench.workers.Order` as JSON."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        _serve(json.loads(arguments[0]), answers)
    except EdgedetError as exc:
        _answer(answers, error_header(exc))


def _serve(order: dict[str, Any], answers: TextIO) -> None:
    cv2.setNumThreads(order["threads"])
    with np.load(order["images"]) as file:
        images = [file[name] for name in file.files]
    started = time.perf_counter()
    what = (Path(order["path"]), order["runtime"], order["precision"], order["threads"])
    with load(*what, batch=order["batch"]) as pipeline:
        load_ms = 1e3 * (time.perf_counter() - started)
        stopwatch = Stopwatch(pipeline, images)
        frames, stable = stopwatch.warm_up()
        state = read_condition(Path(order["system"])).model_dump(mode="json")
        _answer(answers, {"load_ms": load_ms, "warm_up_frames": frames, "stable": stable, "condition": state})
        for line in sys.stdin:
            request = json.loads(line)
            if "seconds" in request:
                _answer(answers, turn(stopwatch, request, Path(order["system"])))
            else:
                _answer(answers, executed(pipeline))


def turn(stopwatch: Stopwatch, request: dict[str, Any], system: Path) -> dict[str, Any]:
    """Measure once; the machine is read right behind the last frame, while its clock is that of work.

    Energy is read first: what reading the rest takes is not of the frames.
    """
    if request["settle"]:
        stopwatch.settle(request["seconds"])
    counters, started = read_energy(system), time.perf_counter()
    times = stopwatch.measure(request["seconds"], request["frames"])
    seconds = time.perf_counter() - started
    spent = read_energy(system)
    condition = read_condition(system)
    joules, source = joules_between(counters, spent, seconds)
    return {
        "times": dataclasses.asdict(times),
        "seconds": seconds,
        "condition": condition.model_dump(mode="json"),
        "joules": joules,
        "energy_source": source,
        "peak_rss_mb": peak_rss_mb(),
    }


def executed(pipeline: Pipeline) -> dict[str, Any]:
    """The graph that the runtime executes, as JSON; none where it does not tell, an error where it cannot."""
    try:
        graph: ExecutedGraph | None = cast(Any, pipeline.runtime).executed()
    except EdgedetError as exc:
        return error_header(exc)
    return {"executed": None if graph is None else graph.model_dump(mode="json")}


def _answer(answers: TextIO, value: dict[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


def peak_rss_mb() -> float | None:
    """Largest resident memory of this process so far, in 10^6 bytes; None where the system does not say.

    Linux's VmHWM and not `getrusage`: the latter keeps across exec what the parent had when it forked.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else None


if __name__ == "__main__":
    main(sys.argv[1:])
