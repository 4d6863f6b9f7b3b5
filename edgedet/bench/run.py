"""A benchmark from a bundle to a report."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from edgedet.bench import condition
from edgedet.bench.cautions import fallback_failures, fallback_warnings, unknown_coverage, warnings_of
from edgedet.bench.cold_start import measure_cold_start
from edgedet.bench.contenders import Contender, find_contenders, first_frames
from edgedet.bench.coverage import Coverage, judge
from edgedet.bench.report import (
    SINGLE_STREAM_FRAMES,
    SINGLE_STREAM_S,
    BenchmarkReport,
    BenchmarkRow,
    Noise,
    Scenario,
)
from edgedet.bench.rows import Measured, benchmark_rows, noise_of
from edgedet.bench.turns import Lane, left_out, processes_of, run_alone, take_turns
from edgedet.bench.workers import Order, Worker
from edgedet.bundle import artifact_name
from edgedet.data import open_dataset
from edgedet.data.dataset import Dataset
from edgedet.environment import read_environment
from edgedet.errors import EdgedetError, InternalError, MissingError, UsageError
from edgedet.executed import ExecutedGraph, claims_integers
from edgedet.preprocess import Image
from edgedet.progress import Track, silent
from edgedet.selection import Skipped, check_names
from edgedet.spec import Precision

# What a measurement takes beside its own time: reading the graph, starting cold; and settling before turns.
_BESIDE_S = 4.0
_SETTLING = 1.2

# Readings of the executed graph before an artifact is said to have fallen back to float.
_READINGS = 5


def run_benchmark(
    source: Path | str,
    runtimes: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    threads: Sequence[int] = (1,),
    dataset: Dataset | None = None,
    duration_s: float = 5.0,
    track: Track = silent,
    leave_out: Sequence[str] = (),
    *,
    least_frames: int | None = None,
    sustained: bool = False,
    noise: bool = False,
    cold_starts: int = 0,
    device: str = "local",
    announce: Callable[[str], None] | None = None,
    batches: Sequence[int] | None = None,
) -> BenchmarkReport:
    """Measure a bundle's artifacts, or one lone artifact, from image to detections on this machine.

    Args:
        source: A bundle folder or an artifact file.
        runtimes: Names of runtimes that must be measured; by default all that source and machine have.
        precisions: Precisions that must be measured; by default all of the source.
        threads: Numbers of CPU threads, each measured.
        dataset: Its first images are shown in turn; by default those of the built-in data set.
        duration_s: Measured seconds for each artifact and number of threads.
        track: Shows progress.
        leave_out: Runtimes of a bundle that are not measured unless they are asked for.
        least_frames: Measured frames for each, if they take longer; by default 1,024 from 60 seconds on, as
            MLPerf asks of a single stream, and else one.
        sustained: Run each for the whole time before the next, and compare minute 1 with the last.
        noise: Measure the last artifact as two, which shows what differences mean nothing.
        cold_starts: Fresh processes for each whose first detections are timed.
        device: What rows say of where they ran.
        announce: Is told once, when all are warm and before any is measured, what is done and how long that
            takes.
        batches: Images of one inference, each measured; by default 1 of a bundle, and what a lone artifact
            has.

    Raises:
        UsageError: A name does not exist, a number makes no sense, or the source lacks what was asked for.
        BundleError: The source cannot be read.
        DataError: The data set has no readable image.
        MissingError: A runtime that was asked for is not installed, or none is.
        InternalError: The worker of a runtime that was asked for ended early, or all did.
    """
    _check_numbers(threads, duration_s)
    precisions = check_names(runtimes, precisions)
    spec, contenders, skipped = find_contenders(Path(source), runtimes, precisions, leave_out, batches)
    frames, description = first_frames(open_dataset("builtin") if dataset is None else dataset)
    environment = read_environment()
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    started = datetime.now(UTC).isoformat(timespec="seconds")
    if least_frames is None:
        least_frames = SINGLE_STREAM_FRAMES if duration_s >= SINGLE_STREAM_S and not sustained else 1
    plan = _Plan(duration_s, least_frames, sustained, noise and not sustained, cold_starts)
    jobs = [(contender, count) for contender in contenders for count in dict.fromkeys(threads)]
    failed: list[str] = []
    measured, difference = _measure(jobs, plan, frames, runtimes, skipped, track, announce, failed)
    rows = tuple(row.model_copy(update={"device": device}) for row in benchmark_rows(measured))
    return BenchmarkReport(
        detector=spec.name,
        images=description,
        rows=rows,
        skipped=tuple(skipped),
        warnings=(
            *fallback_failures(rows),
            *unknown_coverage(rows),
            *warnings_of(rows, environment, load_average, difference),
            *fallback_warnings(measured),
            *failed,
        ),
        environment=environment,
        scenario=_scenario(rows, plan),
        noise=difference,
        checkpoint_sha256=spec.provenance.checkpoint_sha256,
        started=started,
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """How everything is measured; fields are arguments of `run_benchmark`."""

    duration_s: float
    least_frames: int
    sustained: bool
    noise: bool
    cold_starts: int


def _measure(
    jobs: Sequence[tuple[Contender, int]],
    plan: _Plan,
    frames: Sequence[Image],
    asked: Sequence[str] | None,
    skipped: list[Skipped],
    track: Track,
    announce: Callable[[str], None] | None,
    failed: list[str],
) -> tuple[list[Measured], Noise | None]:
    """What each job measured, and what the one that was measured as two differs by.

    What fails beside them is no reason to lose them: `failed` takes a sentence of it.
    """
    with ExitStack() as stack:
        images = _saved(frames, stack)
        lanes = _open_all(jobs, images, asked, skipped, stack, track)
        if plan.noise:
            last = lanes[-1]
            try:
                again = stack.enter_context(Worker(last.worker.order))
            except (MissingError, InternalError) as exc:
                failed.append(f"the noise is not known: a second process could not be opened: {exc}")
            else:
                lanes.append(Lane(last.contender, again, again=True))
        if announce is not None:
            announce(forecast(len(lanes), plan.duration_s, plan.least_frames, sustained=plan.sustained))
        if plan.sustained:
            run_alone(lanes, plan.duration_s, asked, skipped, track)
        else:
            take_turns(lanes, plan.duration_s, plan.least_frames, asked, skipped, track)
        left = [lane for lane in lanes if lane.turns]
        measured = [_measured(lane, plan) for lane in track(left, "Reading graphs", len(left))]
    own = [one for one, lane in zip(measured, left, strict=True) if not lane.again]
    return _with_cold_starts(own, left, plan.cold_starts, frames, track, failed), _noise(left, measured)


def forecast(measurements: int, duration_s: float, least_frames: int, *, sustained: bool = False) -> str:
    """What is done, and how long it takes at least.

    Args:
        measurements: Artifacts times numbers of threads.
        duration_s: Seconds of each.
        least_frames: Frames of each, if they take longer.
        sustained: Whether they run one after another without settling before each turn.
    """
    each = f"{duration_s:g} s" + (f" and {least_frames:,} frames" if least_frames > 1 else "")
    how = "one after another" if sustained else "in turns"
    processes = 1 if sustained else processes_of(duration_s)
    seconds = measurements * (
        duration_s * (1.0 if sustained else _SETTLING) + _BESIDE_S * (1 + processes) / 2
    )
    longer = ", longer where a frame takes more than "
    longer += f"{1e3 * duration_s / least_frames:.0f} ms" if least_frames > 1 else ""
    return (
        f"{measurements} measurement{'s' * (measurements != 1)} of at least {each} each, {how}: "
        f"about {_in_words(seconds)}{longer if least_frames > 1 else ''}"
    )


def _in_words(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _check_numbers(threads: Sequence[int], duration_s: float) -> None:
    if not threads or min(threads) < 1 or not 0 < duration_s < math.inf:
        raise UsageError(
            "cannot measure that",
            got=f"threads {list(threads)}, {duration_s} seconds",
            expected="numbers of threads of 1 or more, and more than 0 seconds",
            fix="for example --threads 1,2 --duration 10",
        )


def _saved(frames: Sequence[Image], stack: ExitStack) -> Path:
    path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgedet-"))) / "images.npz"
    np.savez(path, allow_pickle=False, **{f"{index:03d}": frame for index, frame in enumerate(frames)})
    return path


def _open_all(
    jobs: Sequence[tuple[Contender, int]],
    images: Path,
    asked: Sequence[str] | None,
    skipped: list[Skipped],
    stack: ExitStack,
    track: Track,
) -> list[Lane]:
    """One warm worker a job; runtimes that do not work here are skipped unless they were asked for."""
    lanes: list[Lane] = []
    missing: dict[tuple[str, Precision, int], MissingError | InternalError] = {}
    for index, (contender, count) in enumerate(track(jobs, "Warming up", len(jobs))):
        key = (contender.runtime, contender.precision, contender.batch)
        if key in missing:
            continue
        order = Order(
            contender.path,
            contender.runtime,
            contender.precision,
            count,
            images,
            condition.ROOT,
            contender.batch,
        )
        try:
            lanes.append(Lane(contender, stack.enter_context(Worker(order))))
        except (MissingError, InternalError) as exc:
            if asked is not None:
                raise
            missing[key] = exc
            skipped.append(left_out(contender, [n for other, n in jobs[index:] if other is contender], exc))
    if not lanes:
        raise next(iter(missing.values()))
    return lanes


def _measured(lane: Lane, plan: _Plan) -> Measured:
    contender, worker = lane.contender, lane.worker
    is_integer = claims_integers(contender.precision) and not lane.again
    graph, coverage = _judged(lane) if is_integer else (None, None)
    return Measured(
        runtime=contender.runtime,
        precision=contender.precision,
        threads=lane.threads,
        batch=contender.batch,
        model_bytes=contender.model_bytes,
        turns=tuple(lane.turns),
        ends_s=tuple(lane.ends_s),
        load_ms=worker.load_ms,
        warm_up_frames=worker.warm_up_frames,
        stable=worker.stable,
        peak_rss_mb=worker.peak_rss_mb,
        executed=graph,
        coverage=coverage,
        model_sha256=contender.model_sha256,
        before=worker.condition,
        alone=plan.sustained,
        processes=1 if plan.sustained else processes_of(plan.duration_s),
    )


def _judged(lane: Lane) -> tuple[ExecutedGraph | None, Coverage]:
    """What an artifact executed and whether that is what it was made for.

    Shares of time are those of few inferences, and other programs disturb them: what would fail is read more
    often, and the median reading decides.
    """
    graph, coverage = _reading(lane)
    if coverage.verdict != "fallback" or coverage.float_time is None:
        return graph, coverage
    readings = [(graph, coverage), *(_reading(lane) for _ in range(_READINGS - 1))]
    read = [reading for reading in readings if reading[0] is not None]
    return sorted(read, key=lambda reading: reading[1].float_time or 0.0)[len(read) // 2]


def _reading(lane: Lane) -> tuple[ExecutedGraph | None, Coverage]:
    """What an artifact that is meant to run on integers executes once, where its runtime tells."""
    contender, graph, unread = lane.contender, None, ""
    try:
        graph = lane.worker.executed()
    except EdgedetError as exc:
        unread = str(exc)
    return graph, judge(graph, contender.precision, contender.float_layers, unread)


def _noise(lanes: Sequence[Lane], measured: Sequence[Measured]) -> Noise | None:
    """Of the lane that was measured as two, where both went through."""
    pairs = list(zip(lanes, measured, strict=True))
    for lane, again in pairs:
        for other, one in pairs:
            if lane.again and not other.again and other.worker.order == lane.worker.order:
                return noise_of(one, again)
    return None


def _with_cold_starts(
    measured: Sequence[Measured],
    lanes: Sequence[Lane],
    processes: int,
    frames: Sequence[Image],
    track: Track,
    failed: list[str],
) -> list[Measured]:
    """The same with the times of cold starts, which run when all workers have ended."""
    if processes < 1:
        return list(measured)
    orders = [lane.worker.order for lane in lanes if not lane.again]
    with ExitStack() as stack:
        images = _saved(frames, stack)
        pairs, started = list(zip(measured, orders, strict=True)), []
        for one, order in track(pairs, "Starting cold", len(pairs)):
            cold = measure_cold_start(replace(order, images=images), processes)
            if isinstance(cold, str):
                name = artifact_name(one.runtime, one.precision, one.batch)
                failed.append(f"{name} failed when it was started cold: {cold}")
            started.append(one if isinstance(cold, str) else replace(one, cold_start=cold))
        return started


def _scenario(rows: Sequence[BenchmarkRow], plan: _Plan) -> Scenario:
    single = [row for row in rows if row.batch == 1]
    judged = single or rows
    least_s, least = min(row.measured_s for row in judged), min(row.frames for row in judged)
    is_whole = least_s >= SINGLE_STREAM_S and least >= SINGLE_STREAM_FRAMES
    by_rule: Literal["batched", "quick", "single-stream"] = (
        "batched" if not single else "single-stream" if is_whole else "quick"
    )
    return Scenario(
        name="sustained" if plan.sustained else by_rule,
        duration_s=plan.duration_s,
        least_frames=plan.least_frames,
        least_measured_s=least_s,
        least_measured_frames=least,
        batches=tuple(sorted({row.batch for row in rows})),
    )
