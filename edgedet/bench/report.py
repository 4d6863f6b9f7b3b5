"""What a benchmark measured, as values that are written as JSON."""

from __future__ import annotations

from typing import ClassVar, Literal

from edgedet.environment import Environment
from edgedet.saved import SavedValue
from edgedet.selection import Skipped
from edgedet.spec import Precision, Value


class Percentiles(Value):
    """Of the time from image to detections, in milliseconds."""

    p50: float
    p90: float
    p99: float


class BenchmarkRow(Value):
    """One artifact with one number of threads.

    Attributes:
        runtime: Name of the runtime.
        precision: Precision of the artifact.
        device: Where it ran.
        threads: CPU threads of the runtime and of the resize.
        frames: Frames that were measured.
        preprocess_ms: Median of image to input tensor.
        inference_ms: Median of the runtime.
        postprocess_ms: Median of raw outputs to detections.
        total_ms: Percentiles of the three together.
        fps: Frames a second, one after the other: 1000 over the mean of the total.
        host_share: Part of the time that is not the runtime's: (preprocess + postprocess) / total.
        detections_per_frame: Mean number of objects; postprocessing takes longer the more there are.
        load_ms: Opening the artifact, with the import of the runtime.
        warm_up_frames: Frames before measuring, until the time a frame takes was stable.
        stable: Whether it became so.
        peak_rss_mb: Largest resident memory of a process that does nothing else, in 10^6 bytes; None where
            the system does not say.
        model_bytes: Size of the artifact's files.
        speedup_vs_fp32: Time of the same runtime and threads in fp32 over this one's, median over rounds in
            which both took their turn; None without one.
        speedup_interval: Between which values that median lies with 95 % confidence or more, from the order
            of the ratios of rounds (`edgedet.bench.rows.median_interval`); None with fewer than six rounds.
        integer_share: Part of the operators that compute which ran on integers, 0..1, as the runtime tells;
            None for what is not meant to run on integers, and where the runtime does not tell.
    """

    runtime: str
    precision: Precision
    device: str = "local"
    threads: int
    frames: int
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float
    total_ms: Percentiles
    fps: float
    host_share: float
    detections_per_frame: float
    load_ms: float
    warm_up_frames: int
    stable: bool
    peak_rss_mb: float | None
    model_bytes: int
    speedup_vs_fp32: float | None
    speedup_interval: tuple[float, float] | None = None
    integer_share: float | None = None


class BenchmarkReport(SavedValue):
    """Everything that a benchmark measured.

    Attributes:
        detector: Name of the detector.
        images: What was detected in.
        rows: One an artifact and number of threads.
        skipped: What was not measured, and why.
        warnings: What a reader should know before believing or using a number.
        environment: The machine.
    """

    command: ClassVar[str] = "edgedet benchmark"

    schema_version: Literal[1] = 1
    detector: str
    images: str
    rows: tuple[BenchmarkRow, ...]
    skipped: tuple[Skipped, ...]
    warnings: tuple[str, ...]
    environment: Environment
