"""Measures what `decide` needs: one benchmark of all artifacts in turns, and one evaluation of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from edgedet.bench import BenchmarkReport, BenchmarkRow, run_benchmark
from edgedet.bundle import open_bundle
from edgedet.data.dataset import Dataset
from edgedet.errors import DataError, UsageError
from edgedet.evaluate import evaluate
from edgedet.pipeline import load
from edgedet.progress import Track, silent
from edgedet.recommend.decide import Candidate, Recommendation, recommend
from edgedet.saved import SavedValue
from edgedet.selection import FLOAT


class RecommendationReport(SavedValue):
    """A recommendation and what it rests on.

    Attributes:
        detector: Name of the detector.
        data: What mAP was measured on.
        images: Images of it.
        recommendation: The figures, and what to ship.
        benchmark: Where latencies come from, with its warnings and what was left out.
    """

    command: ClassVar[str] = "edgedet recommend"

    schema_version: Literal[1] = 1
    detector: str
    data: str
    images: int
    recommendation: Recommendation
    benchmark: BenchmarkReport


def run_recommendation(
    source: Path | str,
    dataset: Dataset,
    max_drop: float = 0.01,
    runtimes: Sequence[str] | None = None,
    threads: int = 1,
    duration_s: float = 10.0,
    track: Track = silent,
) -> RecommendationReport:
    """Measure every artifact of a bundle and decide which to ship.

    Args:
        source: The bundle.
        dataset: Images with boxes for mAP; its first images are also those that are timed.
        max_drop: Part of the float mAP that may be lost, 0..1.
        runtimes: Names of runtimes that must be measured; by default all but PyTorch that bundle and machine
            have.
        threads: CPU threads.
        duration_s: Measured seconds for each artifact, in six turns at least.
        track: Shows progress.

    Raises:
        UsageError: A number makes no sense, or as `run_benchmark`.
        DataError: There are no boxes to measure mAP against.
        BundleError: The bundle cannot be read.
        MissingError: A runtime that was asked for is not installed, or none is.
    """
    if not 0 <= max_drop < 1:
        raise UsageError(
            "cannot allow that drop of mAP",
            got=f"{100 * max_drop:g} %",
            expected="from 0 % to less than 100 %",
            fix="for example 1%",
        )
    bundle = open_bundle(source)
    timed = run_benchmark(source, runtimes, None, (threads,), dataset, duration_s, track, leave_out=(FLOAT,))
    images, rows = 0, []
    for row in timed.rows:
        images, average = _evaluated(bundle.root, row, dataset, track)
        rows.append(_candidate(row, average))
    return RecommendationReport(
        detector=bundle.spec.name,
        data=" ".join(filter(None, (dataset.root.resolve().name, dataset.split))),
        images=images,
        recommendation=recommend(rows, max_drop),
        benchmark=timed,
    )


def _evaluated(root: Path, row: BenchmarkRow, dataset: Dataset, track: Track) -> tuple[int, float]:
    with load(root, row.runtime, row.precision, row.threads) as pipeline:
        report = evaluate(pipeline, dataset, track)
    if report.map is None:
        raise DataError(
            "there is nothing to measure precision against",
            got=f"no boxes in {dataset.root} ({dataset.summary})",
            expected="images with boxes, as COCO json, Pascal VOC or YOLO",
            fix="point --data at labelled images",
        )
    return report.images, report.map


def _candidate(row: BenchmarkRow, average: float) -> Candidate:
    gain, interval = row.speedup_vs_fp32, row.speedup_interval
    return Candidate(
        runtime=row.runtime,
        precision=row.precision,
        latency_ms=row.total_ms.p50,
        latency_ratio=None if gain is None else 1 / gain,
        ratio_interval=None if interval is None else (1 / interval[1], 1 / interval[0]),
        map=average,
        model_bytes=row.model_bytes,
    )
