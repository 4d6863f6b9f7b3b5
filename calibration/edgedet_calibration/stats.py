"""What was seen of each tensor during calibration: exact extremes and a histogram of bounded size.

A histogram spans [-2^k, 2^k) in bins whose width is a power of two. A value outside doubles the span and
merges bins in pairs, which is exact, so the result depends neither on the order of the images nor on how they
were batched, and takes the same memory for ten images as for a million. The extremes of the images are summed
as integers for the same reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from edgedet.data.coverage import Coverage
from edgedet.errors import BundleError
from edgedet.spec import SCHEMA_VERSION, InputSpec, Value, first_problem
from edgedet_calibration.recipe import Recipe

BINS = 4096
_SMALLEST_EXPONENT = -20
_CORRECT_AGAIN = (
    "calibrate again with images: export with --calibration DIR, or have nothing corrected by the recipe "
    '(bias_correction = false, rounding = "nearest")'
)
# By whether the corrections are of weights that are not pair-safe: recipes of earlier versions do not say so.
_SAME_RECIPE = {
    False: "give the recipe that they were made under with --recipe",
    True: "give the recipe that they were made under with --recipe, with pair_safe = false added",
}
# Every float32 is a whole number of 2^-149, the smallest of them.
_STEP_EXPONENT = -149


@dataclass(slots=True, eq=False)
class Histogram:
    """Counts of the values of one tensor.

    Attributes:
        low: Smallest value seen.
        high: Largest value seen.
        exponent: The bins span [-2^exponent, 2^exponent).
        counts: int64 `[BINS]`.
        images: How many images they are of; 0 where a file of an earlier version does not say.
        low_sum: Sum of the smallest values of the images, in steps of 2^-149.
        high_sum: Sum of their largest values, in the same steps.
    """

    low: float = math.inf
    high: float = -math.inf
    exponent: int = _SMALLEST_EXPONENT
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    images: int = 0
    low_sum: int = 0
    high_sum: int = 0

    def add(self, values: torch.Tensor) -> None:
        """Count the values of a float32 tensor `[n, ...]` of n images, which must be finite."""
        images = values.detach().reshape(len(values), -1)
        lows, highs = images.amin(1).tolist(), images.amax(1).tolist()
        low, high = min(lows), max(highs)
        if not all(map(math.isfinite, (*lows, *highs))):
            raise ValueError("values are not finite")
        # + 0.0 makes the two zeros one: which of them a minimum gives depends on the order.
        self.low, self.high = min(self.low, low) + 0.0, max(self.high, high) + 0.0
        self.images += len(lows)
        self.low_sum += sum(map(_steps, lows))
        self.high_sum += sum(map(_steps, highs))
        while max(-self.low, self.high) >= 2.0**self.exponent:
            self._double()
        # torch.histc adds the span before it divides, and so loses the sign of what is next to 0.
        # Bins are a power of two wide, so that float32 divides exactly.
        bins = images.mul(BINS / 2.0 ** (self.exponent + 1)).floor_().add_(BINS // 2)
        self.counts += torch.bincount(bins.flatten().short(), minlength=BINS).numpy()

    def merged(self, other: Histogram) -> Histogram:
        """The histogram of two tensors that share a range.

        The mean of its images' extremes is the wider one of both tensors: a mean over the tensors would cut
        the wider tensor off.
        """
        wide, narrow = (self, other) if self.exponent >= other.exponent else (other, self)
        copy = Histogram(narrow.low, narrow.high, narrow.exponent, narrow.counts.copy())
        while copy.exponent < wide.exponent:
            copy._double()
        return Histogram(
            min(self.low, other.low),
            max(self.high, other.high),
            wide.exponent,
            wide.counts + copy.counts,
            self.images * other.images,
            min(self.low_sum * other.images, other.low_sum * self.images),
            max(self.high_sum * other.images, other.high_sum * self.images),
        )

    def mean_extremes(self) -> tuple[float, float]:
        """Means over the images of the smallest and of the largest value; needs `images` above 0."""
        scale = Fraction(2) ** _STEP_EXPONENT / self.images
        return float(self.low_sum * scale), float(self.high_sum * scale)

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


def _steps(value: float) -> int:
    """A float32 in steps of 2^-149."""
    return int(math.ldexp(value, -_STEP_EXPONENT))


class TensorStats(Value):
    """A histogram on disk; empty bins at both ends are left out."""

    low: float
    high: float
    exponent: int
    first_bin: int = Field(ge=0, lt=BINS)
    counts: tuple[int, ...] = Field(max_length=BINS)
    images: int = Field(default=0, ge=0)
    low_sum: int = 0
    high_sum: int = 0

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
            images=histogram.images,
            low_sum=histogram.low_sum,
            high_sum=histogram.high_sum,
        )

    def histogram(self) -> Histogram:
        """The histogram that was stored."""
        counts = np.zeros(BINS, np.int64)
        counts[self.first_bin : self.first_bin + len(self.counts)] = self.counts
        return Histogram(self.low, self.high, self.exponent, counts, self.images, self.low_sum, self.high_sum)


class ImageEntry(Value):
    """One calibration image."""

    image_id: str
    sha256: str


class Corrections(Value):
    """What corrects one arithmetic, by the names of convolutions.

    Attributes:
        weight_steps: How far each weight is moved from its nearest integer, written by `weight_steps.packed`.
        bias_shifts: What is added to each bias.
    """

    weight_steps: dict[str, str] = Field(default_factory=dict)
    bias_shifts: dict[str, tuple[float, ...]] = Field(default_factory=dict)


class CorrectionOrigin(Value):
    """What of a recipe decided the corrections: whatever decides the integers that they correct.

    Attributes:
        observer: As in `Recipe`.
        percentile: As in `Recipe`; None where the observer does not read it.
        weights: As in `Recipe`.
        rounding: As in `Recipe`.
        bias_correction: As in `Recipe`.
        float_layers: As in `Recipe`.
        pair_safe: As in `Recipe`; files of earlier versions, which lack it, were made without.
    """

    observer: str
    percentile: float | None
    weights: str
    rounding: str
    bias_correction: bool
    float_layers: tuple[str, ...]
    pair_safe: bool = False

    @staticmethod
    def of(recipe: Recipe) -> CorrectionOrigin:
        """That of corrections that are made under a recipe."""
        return CorrectionOrigin(
            observer=recipe.observer,
            percentile=recipe.percentile if recipe.observer == "percentile" else None,
            weights=recipe.weights,
            rounding=recipe.rounding,
            bias_correction=recipe.bias_correction,
            float_layers=recipe.float_layers,
            pair_safe=recipe.pair_safe,
        )


Factor = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Stats(Value):
    """The calibration file: what was seen of every tensor, and on what.

    Attributes:
        checkpoint_sha256: Of the detector.
        input: How images became tensors.
        images: Those that were seen.
        tensors: Extremes and histograms by node name.
        equalization: Whether channels were equalized before, as `Recipe.equalization` asks.
        channel_factors: What channel equalization divides channels by, by node name: all else is of the
            equalized graph.
        ranges: Those that quantization-aware training learned, by node name: nothing was collected then.
        corrections: What is done to weights and biases, by `Encoding.arithmetic`.
        correction_origin: What of the recipe decided them; None where there are none.
        coverage: What the images show; None in files of earlier versions.
    """

    schema_version: Literal[1] = 1
    checkpoint_sha256: str
    input: InputSpec
    images: tuple[ImageEntry, ...]
    tensors: dict[str, TensorStats]
    equalization: bool = False
    channel_factors: dict[str, tuple[Factor, ...]] = Field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = Field(default_factory=dict)
    corrections: dict[str, Corrections] = Field(default_factory=dict)
    correction_origin: CorrectionOrigin | None = None
    coverage: Coverage | None = None

    @model_validator(mode="after")
    def _corrections_have_an_origin(self) -> Stats:
        if self.corrections and self.correction_origin is None:
            raise ValueError("corrections without correction_origin: it is not known what they correct")
        return self

    def check_fits(self, checkpoint_sha256: str, input_spec: InputSpec, tensors: Iterable[str]) -> None:
        """Refuse statistics of another checkpoint, preprocessing or graph.

        Raises:
            BundleError: They differ; the message names what.
        """
        missing = sorted(set(tensors) - set(self.tensors) - set(self.ranges))
        differs = (
            ("checkpoint", self.checkpoint_sha256[:12], checkpoint_sha256[:12]),
            *_differences("preprocessing", self.input, input_spec),
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

    def corrections_for(self, recipe: Recipe, arithmetic: str) -> Corrections:
        """The corrections of an arithmetic; empty where the recipe does without.

        Raises:
            BundleError: There are none, or they were made under another recipe; the message names it.
        """
        if not recipe.corrects:
            return Corrections()
        if arithmetic not in self.corrections:
            raise BundleError(
                f"the calibration has no corrections for {arithmetic} arithmetic",
                got=f"those for {', '.join(self.corrections)}" if self.corrections else "none",
                expected=f"those for {arithmetic}, which the encoding of a target asks for",
                fix=_CORRECT_AGAIN,
            )
        origin = CorrectionOrigin.of(recipe)
        assert self.correction_origin is not None
        for what, got, expected in _differences("recipe", self.correction_origin, origin):
            if got != expected:
                raise BundleError(
                    f"the corrections of the calibration were made under another {what}",
                    got=got,
                    expected=expected,
                    fix=f"{_SAME_RECIPE[origin.pair_safe and not self.correction_origin.pair_safe]}, or "
                    f"{_CORRECT_AGAIN}",
                )
        return self.corrections[arithmetic]

    def check_reusable(self, recipe: Recipe, arithmetics: Iterable[str]) -> None:
        """Refuse statistics that cannot give what a recipe asks for, when there are no images to look at.

        Raises:
            BundleError: Channels were equalized and should not be, or the other way round; corrections are
                missing, or were made under another recipe.
        """
        if self.equalization != recipe.equalization:
            raise BundleError(
                "the calibration was made under another recipe (equalization)",
                got=f"equalization = {str(self.equalization).lower()}",
                expected=f"equalization = {str(recipe.equalization).lower()}, as the recipe says",
                fix="give the recipe that it was made under with --recipe, or calibrate on images again",
            )
        for arithmetic in arithmetics:
            self.corrections_for(recipe, arithmetic)

    @staticmethod
    def learned(
        checkpoint_sha256: str, input_spec: InputSpec, ranges: Mapping[str, tuple[float, float]]
    ) -> Stats:
        """What quantization-aware training learned, in the place of what calibration collects."""
        return Stats(
            checkpoint_sha256=checkpoint_sha256, input=input_spec, images=(), tensors={}, ranges=dict(ranges)
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


def _differences(what: str, got: Value, expected: Value) -> Iterator[tuple[str, str, str]]:
    """Every field of two values, as `(what and its name, got, expected)`."""
    for name in type(got).model_fields:
        yield f"{what} ({name})", str(getattr(got, name)), str(getattr(expected, name))
