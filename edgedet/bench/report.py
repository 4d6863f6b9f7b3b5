"""What a benchmark measured, as values that are written as JSON."""

from __future__ import annotations

from typing import ClassVar, Literal

from edgedet.bench.condition import Condition
from edgedet.bench.coverage import Coverage
from edgedet.bench.ratio import Ratio
from edgedet.bundle import artifact_name
from edgedet.environment import Environment
from edgedet.saved import SavedValue
from edgedet.selection import Skipped
from edgedet.spec import Precision, Value

SINGLE_STREAM_S = 60.0
SINGLE_STREAM_FRAMES = 1024


class Percentiles(Value):
    """Of the time from image to detections, in milliseconds."""

    p50: float
    p90: float
    p99: float


class Scenario(Value):
    """How it was measured, beside the rule of MLPerf Inference for a single stream.

    That rule asks for 1,024 inferences and 60 s at least, each sent when the one before it is done (Reddi et
    al., MLPerf Inference Benchmark, ISCA 2020, table V). Nothing here is an MLPerf result: its later rounds
    ask for 600 s, its load generator, data and rules of submission. It is a rule for one image at a time and
    says nothing of batches.

    Attributes:
        name: "single-stream" where the rule held for every row of one image at a time; "sustained" where
            artifacts ran one after another, each alone; "quick" for less than the rule; "batched" where no
            row is of one image at a time.
        duration_s: Asked seconds for each artifact and number of threads.
        least_frames: Asked frames for each of them.
        least_measured_s: Fewest seconds that a row was measured; of rows of one image where there are some.
        least_measured_frames: Fewest frames of such a row.
        batches: Images of one inference, of all rows.
    """

    name: Literal["batched", "quick", "single-stream", "sustained"]
    duration_s: float
    least_frames: int
    least_measured_s: float
    least_measured_frames: int
    batches: tuple[int, ...] = (1,)

    def __str__(self) -> str:
        got = f"at least {self.least_measured_frames} frames and {self.least_measured_s:.0f} s a row"
        rule = f"MLPerf's {SINGLE_STREAM_FRAMES} and {SINGLE_STREAM_S:.0f} s"
        if 1 not in self.batches:
            return f"{self.name}: {got}; {rule} are for one image at a time"
        enough = (
            self.least_measured_s >= SINGLE_STREAM_S and self.least_measured_frames >= SINGLE_STREAM_FRAMES
        )
        verdict = "held" if enough else "not held"
        if self.batches == (1,):
            return f"{self.name}: {got}; {rule} {verdict}"
        return f"{self.name}: {got} of batch 1; {rule} {verdict} there, and are not for larger batches"


class Moment(Value):
    """A slice of the measurement of a row.

    Attributes:
        t_s: Its end, in seconds since the first measurement of the run; of the row where it ran alone.
        p50_ms: Median from image to detections; `p90_ms` likewise.
        mhz: Mean clock of the cores at its end; None where the machine does not tell.
        celsius: Hottest sensor at its end; None likewise.
    """

    t_s: float
    p50_ms: float
    p90_ms: float
    mhz: float | None = None
    celsius: float | None = None


class Sustained(Value):
    """What is left of the speed after a long time without rest.

    Attributes:
        window_s: What is compared: the first and the last so many seconds.
        first_p50_ms: Median in the first window; `last_p50_ms` in the last.
        first_fps: Frames a second in the first window; `last_fps` in the last.
        ratio: Last median over the first: above 1 is slower.
    """

    window_s: float
    first_p50_ms: float
    last_p50_ms: float
    first_fps: float
    last_fps: float
    ratio: float


class ColdStart(Value):
    """From the start of a process to its first detections, milliseconds; files may be in the system's cache.

    Each is the median of so many processes, so that parts need not add up to the total.

    Attributes:
        processes: Fresh processes.
        interpreter_ms: Start of Python, import of edgedet, and the image.
        import_ms: Import of the runtime.
        open_ms: Opening the artifact, with the check of its hash.
        first_inference_ms: The runtime, first time.
        first_frame_ms: First frame from image to detections, with that inference.
        total_ms: All of it.
    """

    processes: int
    interpreter_ms: float
    import_ms: float
    open_ms: float
    first_inference_ms: float
    first_frame_ms: float
    total_ms: float


class Noise(Value):
    """One artifact measured as two: what is left is noise.

    Attributes:
        runtime: Of the artifact; `precision`, `threads` and `batch` likewise.
        ratio: Time of the one over the other's.
        floor: Largest difference that the interval of the ratio reaches, as a part of 1: speed-ups and
            changes below it mean nothing.
    """

    runtime: str
    precision: Precision
    threads: int
    ratio: Ratio
    floor: float
    batch: int = 1

    def __str__(self) -> str:
        one, name = self.ratio, artifact_name(self.runtime, self.precision, self.batch)
        interval = "no interval" if one.low is None else f"95 % interval {one.low:.4f} to {one.high:.4f}"
        return (
            f"two measurements of {name} differ by {100 * abs(one.ratio - 1):.2f} % "
            f"({interval}); differences below {100 * self.floor:.1f} % mean nothing"
        )


class BenchmarkRow(Value):
    """One artifact with one number of threads.

    A time is that of one inference, from its images to their detections: of one image, or of a whole batch.
    Frames are images, and so is what is counted by the second.

    Attributes:
        runtime: Name of the runtime.
        precision: Precision of the artifact.
        device: Where it ran.
        threads: CPU threads of the runtime and of the resize.
        batch: Images of one inference.
        frames: Frames that were measured.
        preprocess_ms: Median of image to input tensor.
        inference_ms: Median of the runtime.
        postprocess_ms: Median of raw outputs to detections.
        total_ms: Percentiles of the three together.
        fps: Frames a second, one inference after the other: 1000 times the batch over the mean of the total.
        host_share: Part of the time that is not the runtime's: (preprocess + postprocess) / total.
        detections_per_frame: Mean number of objects; postprocessing takes longer the more there are.
        load_ms: Opening the artifact, with the import of the runtime.
        warm_up_frames: Frames before measuring, until the time a frame takes was stable.
        stable: Whether it became so.
        peak_rss_mb: Largest resident memory of a process that does nothing else, in 10^6 bytes; None where
            the system does not say.
        model_bytes: Size of the artifact's files.
        p50_interval: Between which milliseconds the median of turns lies with 95 % confidence or more; None
            with fewer than six turns.
        processes: Processes that took the turns one after another; with more than one, intervals are from
            process to process.
        speedup_vs_fp32: Time of the same runtime, threads and batch in fp32 over this one's, from the turns
            that both took (`edgedet.bench.ratio.paired_ratio`); None without one, and where each ran alone.
        speedup_interval: Between which values it lies with 95 % confidence or more; None with fewer than six
            blocks of turns.
        gain_over_batch_1: How many times as many frames a second as the same runtime, precision and threads
            with one image at a time, from the turns that both took; None for that one, without it, and where
            each ran alone.
        gain_interval: As `speedup_interval`.
        integer_share: Part of the operators that compute which ran on integers, 0..1, as the runtime tells;
            None for what is not meant to run on integers, and where the runtime does not tell.
        coverage: Whether it ran as it was meant to; None for what is not meant to run on integers.
        model_sha256: Of the file that the runtime opens.
        measured_s: Seconds of frames that were measured.
        series: Its time in order, 240 slices at most.
        sustained: Minute 1 against the last one; None unless it ran alone.
        cold_start: Process start to first detections; None unless it was asked for.
        before: The machine when it was warm, `after` behind the last of its turns.
        joules_per_frame: Energy of the processor package or of the battery during its turns, with whatever
            else ran meanwhile, over frames; None where the machine does not tell.
        energy_source: "rapl", "battery" or "".
    """

    runtime: str
    precision: Precision
    device: str = "local"
    threads: int
    batch: int = 1
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
    gain_over_batch_1: float | None = None
    gain_interval: tuple[float, float] | None = None
    p50_interval: tuple[float, float] | None = None
    processes: int = 1
    integer_share: float | None = None
    coverage: Coverage | None = None
    model_sha256: str = ""
    measured_s: float = 0.0
    series: tuple[Moment, ...] = ()
    sustained: Sustained | None = None
    cold_start: ColdStart | None = None
    before: Condition | None = None
    after: Condition | None = None
    joules_per_frame: float | None = None
    energy_source: str = ""


class BenchmarkReport(SavedValue):
    """Everything that a benchmark measured.

    Attributes:
        detector: Name of the detector.
        images: What was detected in.
        rows: One an artifact and number of threads; each batch has an artifact of its own.
        skipped: What was not measured, and why.
        warnings: What a reader should know before believing or using a number.
        environment: The machine.
        scenario: How it was measured; None in reports of versions that did not say.
        noise: What one artifact, measured as two, differs by; None unless it was asked for.
        checkpoint_sha256: What was exported.
        started: Date and time in UTC, ISO 8601.
    """

    command: ClassVar[str] = "edgedet benchmark"

    schema_version: Literal[1] = 1
    detector: str
    images: str
    rows: tuple[BenchmarkRow, ...]
    skipped: tuple[Skipped, ...]
    warnings: tuple[str, ...]
    environment: Environment
    scenario: Scenario | None = None
    noise: Noise | None = None
    checkpoint_sha256: str = ""
    started: str = ""

    @property
    def fallbacks(self) -> tuple[BenchmarkRow, ...]:
        """Rows whose artifact did not run as it was meant to."""
        return tuple(row for row in self.rows if row.coverage and row.coverage.verdict == "fallback")
