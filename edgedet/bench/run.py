"""Every artifact measured in turns, so that a changing clock or another program slows all of them alike."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from edgedet import registry
from edgedet.bench.report import BenchmarkReport
from edgedet.bench.rows import Measured, benchmark_rows, fallback_warnings, warnings_of
from edgedet.bench.stopwatch import Times
from edgedet.bench.workers import Order, Worker
from edgedet.bundle import MANIFEST, companions, open_bundle, runtime_of
from edgedet.data import open_dataset
from edgedet.data.dataset import Dataset, nothing_to
from edgedet.environment import read_environment
from edgedet.errors import EdgedetError, InternalError, MissingError, UsageError
from edgedet.executed import ExecutedGraph, claims_integers
from edgedet.preprocess import Image
from edgedet.progress import Track, silent
from edgedet.selection import Skipped, check_names, select
from edgedet.spec import DetectorSpec, Precision

# Different images, so that neither the caches nor the number of objects are those of a single one.
_IMAGES = 8

# A median has an interval of 95 % from six values on.
_LEAST_ROUNDS = 6
# A turn is long enough for a hundred frames of a fast detector, and short against the drift of a clock.
_TURN_S = 1.0


@dataclass(frozen=True, slots=True)
class _Contender:
    """One artifact to be measured."""

    path: Path
    runtime: str
    precision: Precision
    model_bytes: int


@dataclass(slots=True)
class _Lane:
    """A contender, its worker and what was measured so far."""

    contender: _Contender
    worker: Worker
    rounds: list[Times] = field(default_factory=list)


def run_benchmark(
    source: Path | str,
    runtimes: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    threads: Sequence[int] = (1,),
    dataset: Dataset | None = None,
    duration_s: float = 5.0,
    track: Track = silent,
    leave_out: Sequence[str] = (),
) -> BenchmarkReport:
    """Measure a bundle's artifacts, or one lone artifact, from image to detections on this machine.

    Args:
        source: A bundle folder or an artifact file.
        runtimes: Names of runtimes that must be measured; by default all that source and machine have.
        precisions: Precisions that must be measured; by default all of the source.
        threads: Numbers of CPU threads, each measured.
        dataset: Its first images are shown in turn; by default those of the built-in data set.
        duration_s: Measured seconds for each artifact and number of threads; MLPerf asks for 60.
        track: Shows progress.
        leave_out: Runtimes of a bundle that are not measured unless they are asked for.

    Raises:
        UsageError: A name does not exist, a number makes no sense, or the source lacks what was asked for.
        BundleError: The source cannot be read.
        DataError: The data set has no readable image.
        MissingError: A runtime that was asked for is not installed, or none is.
        InternalError: The worker of a runtime that was asked for ended early, or all did.
    """
    _check_numbers(threads, duration_s)
    precisions = check_names(runtimes, precisions)
    spec, contenders, skipped = _contenders(Path(source), runtimes, precisions, leave_out)
    frames, description = _frames(open_dataset("builtin") if dataset is None else dataset)
    environment = read_environment()
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    with ExitStack() as stack:
        images = _saved(frames, stack)
        jobs = [(contender, count) for contender in contenders for count in dict.fromkeys(threads)]
        lanes = _open_all(jobs, images, runtimes, skipped, stack, track)
        _take_turns(lanes, duration_s, runtimes, skipped, track)
        measured = [_measured(lane) for lane in track(lanes, "Reading graphs", len(lanes)) if lane.rounds]
    rows = benchmark_rows(measured)
    return BenchmarkReport(
        detector=spec.name,
        images=description,
        rows=rows,
        skipped=tuple(skipped),
        warnings=(*warnings_of(rows, environment, load_average), *fallback_warnings(measured)),
        environment=environment,
    )


def _check_numbers(threads: Sequence[int], duration_s: float) -> None:
    if not threads or min(threads) < 1 or not 0 < duration_s < math.inf:
        raise UsageError(
            "cannot measure that",
            got=f"threads {list(threads)}, {duration_s} seconds",
            expected="numbers of threads of 1 or more, and more than 0 seconds",
            fix="for example --threads 1,2 --duration 10",
        )


def _contenders(
    source: Path,
    runtimes: Sequence[str] | None,
    precisions: Sequence[str] | None,
    leave_out: Sequence[str],
) -> tuple[DetectorSpec, list[_Contender], list[Skipped]]:
    if source.is_file() and source.name != MANIFEST:
        spec, contender = _lone(source, runtimes, precisions)
        return spec, [contender], []
    bundle = open_bundle(source.parent if source.name == MANIFEST else source)
    artifacts, skipped = select(bundle, runtimes, precisions, leave_out)
    return (
        bundle.spec,
        [_Contender(bundle.root, a.runtime, a.precision, a.bytes) for a in artifacts],
        skipped,
    )


def _lone(
    path: Path, runtimes: Sequence[str] | None, precisions: Sequence[str] | None
) -> tuple[DetectorSpec, _Contender]:
    name = runtime_of(path)
    spec: DetectorSpec = registry.RUNTIMES.load(name).read_spec(path)
    if (runtimes and list(runtimes) != [name]) or (precisions and list(precisions) != [spec.precision]):
        raise UsageError(
            f"{path} is one artifact",
            got=" ".join([*(runtimes or ()), *(precisions or ())]),
            expected=f"{name} {spec.precision}",
            fix="leave those options out, or give the bundle that has what they name",
        )
    size = sum(file.stat().st_size for file in (path, *companions(path)) if file.is_file())
    return spec, _Contender(path, name, spec.precision, size)


def _frames(dataset: Dataset) -> tuple[list[Image], str]:
    frames = [image.image_bgr for image in islice(dataset, _IMAGES)]
    if not frames:
        raise nothing_to("detect in", dataset)
    sizes = sorted({f"{frame.shape[1]}x{frame.shape[0]}" for frame in frames})
    shown = ", ".join(sizes[:3]) + (" and others" if len(sizes) > 3 else "")
    name = " ".join(filter(None, (dataset.root.resolve().name, dataset.split)))
    return frames, f"the first {len(frames)} images of {name}, shown in turn, {shown}"


def _saved(frames: Sequence[Image], stack: ExitStack) -> Path:
    path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgedet-"))) / "images.npz"
    np.savez(path, allow_pickle=False, **{f"{index:03d}": frame for index, frame in enumerate(frames)})
    return path


def _open_all(
    jobs: Sequence[tuple[_Contender, int]],
    images: Path,
    asked: Sequence[str] | None,
    skipped: list[Skipped],
    stack: ExitStack,
    track: Track,
) -> list[_Lane]:
    """One warm worker a job; runtimes that do not work here are skipped unless they were asked for."""
    lanes: list[_Lane] = []
    missing: dict[tuple[str, Precision], MissingError | InternalError] = {}
    for index, (contender, count) in enumerate(track(jobs, "Warming up", len(jobs))):
        key = (contender.runtime, contender.precision)
        if key in missing:
            continue
        order = Order(contender.path, contender.runtime, contender.precision, count, images)
        try:
            lanes.append(_Lane(contender, stack.enter_context(Worker(order))))
        except (MissingError, InternalError) as exc:
            if asked is not None:
                raise
            missing[key] = exc
            skipped.append(_skipped(contender, [n for other, n in jobs[index:] if other is contender], exc))
    if not lanes:
        raise next(iter(missing.values()))
    return lanes


def turns(lanes: int, rounds: int) -> list[int]:
    """Whose turn it is: rounds in which every lane has one, each round beginning with another lane."""
    return [(start + index) % lanes for start in range(rounds) for index in range(lanes)]


def _take_turns(
    lanes: list[_Lane],
    duration_s: float,
    asked: Sequence[str] | None,
    skipped: list[Skipped],
    track: Track,
) -> None:
    """Measure in turns; a worker that ends early is skipped unless its runtime was asked for."""
    rounds = max(_LEAST_ROUNDS, round(duration_s / _TURN_S))
    order = [lanes[index] for index in turns(len(lanes), rounds)]
    failed: dict[int, InternalError] = {}
    for lane in track(order, "Measuring", len(order)):
        if id(lane) in failed:
            continue
        try:
            lane.rounds.append(lane.worker.measure(duration_s / rounds))
        except InternalError as exc:
            if asked is not None:
                raise
            failed[id(lane)] = exc
            lane.rounds.clear()
            skipped.append(_skipped(lane.contender, [lane.worker.order.threads], exc))
    if len(failed) == len(lanes):
        raise next(iter(failed.values()))


def _skipped(contender: _Contender, threads: Sequence[int], why: EdgedetError) -> Skipped:
    """What is not measured, with which numbers of threads: others may have a row."""
    count = " and ".join(map(str, threads))
    reason = str(why)
    if not isinstance(why, MissingError):
        reason = f"with {count} thread{'s' * (count != '1')}, {why}"
    return Skipped(runtime=contender.runtime, precision=contender.precision, reason=reason)


def _measured(lane: _Lane) -> Measured:
    return Measured(
        runtime=lane.contender.runtime,
        precision=lane.contender.precision,
        threads=lane.worker.order.threads,
        model_bytes=lane.contender.model_bytes,
        rounds=tuple(lane.rounds),
        load_ms=lane.worker.load_ms,
        warm_up_frames=lane.worker.warm_up_frames,
        stable=lane.worker.stable,
        peak_rss_mb=lane.worker.peak_rss_mb,
        executed=_executed(lane),
    )


def _executed(lane: _Lane) -> ExecutedGraph | None:
    """What an artifact that is meant to run on integers executes, where its runtime tells."""
    if not claims_integers(lane.contender.precision):
        return None
    try:
        return lane.worker.executed()
    except InternalError:
        return None
