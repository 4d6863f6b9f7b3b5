"""What was seen of each tensor during calibration: exact extremes and a histogram of bounded size.

A histogram spans [-2^k, 2^k) in bins whose width is a power of two. A value outside doubles the span and
merges bins in pairs, which is exact, so the result depends neither on the order of the images nor on how they
were batched, and takes the same memory for ten images as for a million.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from edgedet.errors import BundleError
from edgedet.spec import SCHEMA_VERSION, InputSpec, Value, first_problem

BINS = 4096
_SMALLEST_EXPONENT = -20


@dataclass(slots=True, eq=False)
class Histogram:
    """Counts of the values of one tensor.

    Attributes:
        low: Smallest value seen.
        high: Largest value seen.
        exponent: The bins span [-2^exponent, 2^exponent).
        counts: int64 `[BINS]`.
    """

    low: float = math.inf
    high: float = -math.inf
    exponent: int = _SMALLEST_EXPONENT
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, values: torch.Tensor) -> None:
        """Count the values of a float32 tensor, which must be finite."""
        low, high = (float(x) for x in torch.aminmax(values))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("values are not finite")
        self.low, self.high = min(self.low, low), max(self.high, high)
        while max(-self.low, self.high) >= 2.0**self.exponent:
            self._double()
        span = 2.0**self.exponent
        counted = torch.histc(values.detach().flatten().double(), bins=BINS, min=-span, max=span)
        self.counts += counted.numpy().astype(np.int64)

    def merged(self, other: Histogram) -> Histogram:
        """The histogram of both sets of values."""
        wide, narrow = (self, other) if self.exponent >= other.exponent else (other, self)
        copy = Histogram(narrow.low, narrow.high, narrow.exponent, narrow.counts.copy())
        while copy.exponent < wide.exponent:
            copy._double()
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Histogram(low, high, wide.exponent, wide.counts + copy.counts)

    def centres(self) -> NDArray[np.float64]:
        """Middles of the bins, `[BINS]`."""
        width = 2.0 ** (self.exponent + 1) / BINS
        middles: NDArray[np.float64] = np.arange(0.5, BINS) * width - 2.0**self.exponent
        return middles

    def _double(self) -> None:
        merged = np.zeros_like(self.counts)
        merged[BINS // 4 : 3 * BINS // 4] = self.counts.reshape(-1, 2).sum(axis=1)
        self.counts = merged
        self.exponent += 1


class TensorStats(Value):
    """A histogram on disk; empty bins at both ends are left out."""

    low: float
    high: float
    exponent: int
    first_bin: int = Field(ge=0, lt=BINS)
    counts: tuple[int, ...] = Field(max_length=BINS)

    @staticmethod
    def of(histogram: Histogram) -> TensorStats:
        """The stored form of a histogram that has seen values."""
        used = np.flatnonzero(histogram.counts)
        first, last = int(used[0]), int(used[-1]) + 1
        counts = tuple(int(n) for n in histogram.counts[first:last])
        return TensorStats(
            low=histogram.low,
            high=histogram.high,
            exponent=histogram.exponent,
            first_bin=first,
            counts=counts,
        )

    def histogram(self) -> Histogram:
        """The histogram that was stored."""
        counts = np.zeros(BINS, np.int64)
        counts[self.first_bin : self.first_bin + len(self.counts)] = self.counts
        return Histogram(self.low, self.high, self.exponent, counts)


class ImageEntry(Value):
    """One calibration image."""

    image_id: str
    sha256: str


class Stats(Value):
    """The calibration file: what was seen of every tensor, and on what.

    Attributes:
        checkpoint_sha256: Of the detector.
        input: How images became tensors.
        images: Those that were seen.
        tensors: Extremes and histograms by node name.
        equalization: Whether the weights were equalized before, as `Recipe.equalization` says.
        bias_shifts: What `bias_correction` adds to biases, by `Encoding.arithmetic` and node name.
    """

    schema_version: Literal[1] = 1
    checkpoint_sha256: str
    input: InputSpec
    images: tuple[ImageEntry, ...]
    tensors: dict[str, TensorStats]
    equalization: bool = False
    bias_shifts: dict[str, dict[str, tuple[float, ...]]] = Field(default_factory=dict)

    def check_fits(
        self,
        checkpoint_sha256: str,
        input_spec: InputSpec,
        tensors: Iterable[str],
        *,
        equalization: bool = False,
    ) -> None:
        """Refuse statistics of another checkpoint, preprocessing or graph.

        Raises:
            BundleError: They differ; the message names what.
        """
        missing = sorted(set(tensors) - set(self.tensors))
        differs = (
            ("checkpoint", self.checkpoint_sha256[:12], checkpoint_sha256[:12]),
            ("preprocessing", self.input.model_dump_json(), input_spec.model_dump_json()),
            ("equalization", str(self.equalization), str(equalization)),
            ("tensors", "without " + ", ".join(missing[:3]) if missing else "", ""),
        )
        for what, got, expected in differs:
            if got != expected:
                raise BundleError(
                    f"the calibration is stale: its {what} is not this detector's",
                    got=got,
                    expected=expected or "every quantized tensor",
                    fix="calibrate again: export with --calibration DIR",
                )

    @staticmethod
    def from_json(text: bytes, *, source: str) -> Stats:
        """Read a calibration file.

        Raises:
            BundleError: It does not validate.
        """
        try:
            return Stats.model_validate_json(text)
        except ValidationError as exc:
            raise BundleError(
                f"cannot read the calibration in {source}",
                got=first_problem(exc),
                expected=f"calibration of schema version {SCHEMA_VERSION}",
                fix="calibrate again: export with --calibration DIR",
            ) from exc
