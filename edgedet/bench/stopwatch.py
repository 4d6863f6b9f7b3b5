"""Times of the three stages of a pipeline, inference by inference."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgedet.decode import decode_batch
from edgedet.pipeline import Pipeline
from edgedet.preprocess import Image, preprocess_batch

# The first frames after another process had the caches and the cores are not measured: for this long, and no
# longer than what is measured then.
_SETTLE_S = 0.1

# Warm-up ends when the medians of two windows in a row are this near, and after this long at the latest.
_STABLE_WITHIN = 0.05
_WINDOW_S = 0.2
_WINDOW_INFERENCES = 5
_WARM_UP_LIMIT_S = 5.0


@dataclass(slots=True)
class Times:
    """Milliseconds by inference, and the objects that were found.

    Attributes:
        preprocess_ms: Images to input tensor: one image, or those of a batch.
        inference_ms: The runtime.
        postprocess_ms: Raw outputs to detections.
        detections: Objects in all of its images.
    """

    preprocess_ms: list[float] = field(default_factory=list)
    inference_ms: list[float] = field(default_factory=list)
    postprocess_ms: list[float] = field(default_factory=list)
    detections: list[int] = field(default_factory=list)

    def extend(self, other: Times) -> None:
        """Append another slice of the same pipeline."""
        self.preprocess_ms += other.preprocess_ms
        self.inference_ms += other.inference_ms
        self.postprocess_ms += other.postprocess_ms
        self.detections += other.detections

    @property
    def total_ms(self) -> list[float]:
        """Image to detections."""
        stages = zip(self.preprocess_ms, self.inference_ms, self.postprocess_ms, strict=True)
        return [sum(stage) for stage in stages]


class Stopwatch:
    """A pipeline and the images that it is shown in turn.

    Args:
        pipeline: What is timed, at the thresholds of its spec.
        images: At least one; a larger batch shows them again.
    """

    def __init__(self, pipeline: Pipeline, images: Sequence[Image]) -> None:
        self._pipeline = pipeline
        self._images: Iterator[Image] = itertools.cycle(images)
        self._tensor = np.empty(pipeline.spec.input.tensor.shape, np.float32)

    def settle(self, seconds: float) -> None:
        """Run before a measurement of that long, one inference at least; nothing is kept."""
        self._run(min(_SETTLE_S, seconds), least_frames=1)

    def measure(self, seconds: float, least_frames: int = 1) -> Times:
        """Run for that long, and at least so many frames."""
        return self._run(seconds, least_frames)

    def warm_up(self) -> tuple[int, bool]:
        """Run until the time of an inference is stable; returns how many frames, and whether it became so."""
        batch = self._pipeline.spec.input.batch
        frames, previous = 0, 0.0
        start = time.perf_counter()
        while time.perf_counter() - start < _WARM_UP_LIMIT_S:
            totals = self._run(_WINDOW_S, batch * _WINDOW_INFERENCES).total_ms
            frames += batch * len(totals)
            median = statistics.median(totals)
            if abs(median - previous) <= _STABLE_WITHIN * median:
                return frames, True
            previous = median
        return frames, False

    def _run(self, seconds: float, least_frames: int) -> Times:
        times, batch = Times(), self._pipeline.spec.input.batch
        end = time.perf_counter() + seconds
        while batch * len(times.detections) < least_frames or time.perf_counter() < end:
            self._inference(list(itertools.islice(self._images, batch)), times)
        return times

    def _inference(self, images: Sequence[Image], times: Times) -> None:
        spec, clock = self._pipeline.spec, time.perf_counter
        started = clock()
        tensor, geometries = preprocess_batch(images, spec.input, self._tensor)
        fed = clock()
        outputs = self._pipeline.runtime.run({spec.input.name: tensor})
        ran = clock()
        detections = decode_batch(outputs, spec, geometries)
        done = clock()
        times.preprocess_ms.append(1e3 * (fed - started))
        times.inference_ms.append(1e3 * (ran - fed))
        times.postprocess_ms.append(1e3 * (done - ran))
        times.detections.append(sum(map(len, detections)))
