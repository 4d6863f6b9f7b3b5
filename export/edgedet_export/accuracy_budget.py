"""INT8 within a budget of mAP: layers go back to float, the costliest first, until it holds.

What is searched with is the fake-quantized graph of every encoding that is to be written, which is both the
source of an artifact and the reference of its runtime; the artifacts are measured once more when they are
written, for a vendor's optimizer may quantize again what was left in float. The order of the layers is that
of their sensitivity alone; how many of them are needed is found by doubling and then by halving. Alone,
layers do not tell what they do together, so the set that is found is sufficient and need not be the smallest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from edgedet.data import Dataset
from edgedet.errors import CheckError, DataError, UsageError
from edgedet.evaluate import evaluate
from edgedet.pipeline import Pipeline
from edgedet.progress import Track, silent
from edgedet.spec import Value

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from edgedet.models.capture import Captured
    from edgedet_calibration.encodings import Encoding
    from edgedet_calibration.images import CalibrationImages
    from edgedet_calibration.recipe import Recipe
    from edgedet_calibration.stats import Stats

_SENSITIVITY_IMAGES = 8

Maps = dict[str, float]


@dataclass(frozen=True, slots=True)
class AccuracyBudget:
    """How much of the float detector's mAP INT8 may lose.

    Attributes:
        max_drop: Share of it, 0..1.
        dataset: Labelled images that judge.

    Raises:
        UsageError: `max_drop` is no share.
    """

    max_drop: float
    dataset: Dataset

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop < 1:
            raise UsageError(
                "this is no budget of accuracy",
                got=f"{100 * self.max_drop:g} %",
                expected="a share of the float mAP from 0 % to less than 100 %",
                fix="for example --max-drop 1%",
            )


class BudgetReport(Value):
    """What holding a budget took. mAP is 0..1, and by encoding; encodings that compute the same share one.

    Attributes:
        max_drop: The share of `map_float` that might be lost.
        images: How many judged.
        map_float: Of the float detector.
        map_before: With all quantized that the recipe quantizes.
        map_after: With `kept_float` in float as well.
        map_artifacts: Of what was written, through its runtime, by target and precision.
        kept_float: Layers that the budget took out of INT8, the most sensitive first.
        float_operators: How many operators they hold.
        float_macs_share: Their share of the detector's multiply-accumulates, 0..1.
    """

    max_drop: float
    images: int
    map_float: float
    map_before: Maps
    map_after: Maps
    map_artifacts: Maps = Field(default_factory=dict)
    kept_float: tuple[str, ...] = ()
    float_operators: int = 0
    float_macs_share: float = 0.0

    def lines(self) -> tuple[str, ...]:
        """The report for readers."""
        head = (
            f"mAP {100 * self.map_float:.2f} in float on {self.images} images, "
            f"{100 * self.least:.2f} at least in INT8"
        )
        written = (f"as written: {_written(self.map_artifacts)}",) if self.map_artifacts else ()
        if not self.kept_float:
            return (head, f"the budget holds with every layer in INT8: {_written(self.map_after)}", *written)
        return (
            head,
            f"INT8 throughout: {_written(self.map_before)}",
            f"kept float: {', '.join(self.kept_float)}",
            f"with them: {_written(self.map_after)}",
            f"they are {self.float_operators} operators and {100 * self.float_macs_share:.1f} % of the "
            "multiply-accumulates; `edgedet benchmark` shows what they cost in time",
            *written,
        )

    @property
    def least(self) -> float:
        """The lowest mAP that holds the budget."""
        return self.map_float * (1 - self.max_drop)

    def with_artifact(self, name: str, measured: float) -> BudgetReport:
        """The report with the mAP of one artifact.

        Raises:
            CheckError: It does not hold the budget, although the graph that it was made from does.
        """
        if measured < self.least:
            raise CheckError(
                f"{name} does not hold the budget of accuracy",
                got=f"mAP {100 * measured:.2f} through its runtime, {_written(self.map_after)} before",
                expected=f"{100 * self.least:.2f} at least",
                fix="allow a larger drop; `edgedet inspect BUNDLE --executed` on an export without it "
                "shows what the runtime computes otherwise",
            )
        return self.model_copy(update={"map_artifacts": {**self.map_artifacts, name: measured}})


def _written(maps: Maps) -> str:
    return ", ".join(f"{name} {100 * value:.2f}" for name, value in maps.items())


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What an INT8 export starts from.

    Attributes:
        captured: The float graph that was calibrated.
        stats: Its statistics, with bias shifts where the recipe corrects biases.
        recipe: How it is quantized.
        encodings: Of the artifacts to come.
        images: Those that it was calibrated on.
    """

    captured: Captured
    stats: Stats
    recipe: Recipe
    encodings: Sequence[Encoding]
    images: CalibrationImages


def hold_budget(
    calibrated: Calibrated, budget: AccuracyBudget, track: Track = silent
) -> tuple[Recipe, Stats, BudgetReport]:
    """Keep as many of the most sensitive layers float as the budget needs.

    Returns:
        The recipe with their names among `float_layers`, statistics that go with it, and what that took. All
        as it was where the budget holds.

    Raises:
        DataError: The data has no boxes, no class in common with the detector, or no image that can be read.
        CheckError: The float detector finds nothing, or no layer may be quantized.
        MissingExtraError: faster-coco-eval is not installed.
    """
    search = _Search(calibrated, budget, track)
    found = search.tried(())
    if found.holds:
        return calibrated.recipe, calibrated.stats, search.report((), found)
    order = search.by_sensitivity()
    count = _smallest(len(order) - 1, lambda number: search.tried(order[:number]).holds)
    if count is None:
        raise CheckError(
            "the budget of accuracy does not hold in INT8",
            got=f"mAP {_written(search.tried(order[:-1]).maps)} with all layers but {order[-1]} in float, "
            f"{100 * search.map_float:.2f} in float",
            expected=f"a drop of at most {100 * budget.max_drop:g} % of it",
            fix="allow a larger drop, judge on more images, or leave int8 out: --precision fp32",
        )
    kept = tuple(order[:count])
    best = search.tried(kept)
    return best.recipe, best.stats, search.report(kept, best)


def _smallest(most: int, holds: Callable[[int], bool]) -> int | None:
    """The smallest number from 1 for which something holds that goes on to hold; None if it never does."""
    low, high = 0, 1
    while not holds(min(high, most)):
        if high >= most:
            return None
        low, high = high, 2 * high
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


@dataclass(frozen=True, slots=True)
class _Trial:
    """A recipe that was tried: its statistics and mAP by encoding, of those that were measured."""

    recipe: Recipe
    stats: Stats
    maps: Maps
    holds: bool


class _Search:
    """Recipes that were tried, by the layers that they keep float in addition."""

    def __init__(self, calibrated: Calibrated, budget: AccuracyBudget, track: Track) -> None:
        self._given, self._budget, self._track = calibrated, budget, track
        self._encodings = {encoding.arithmetic: encoding for encoding in reversed(calibrated.encodings)}
        self._trials: dict[tuple[str, ...], _Trial] = {}
        measured = self._map(calibrated.captured.graph_module, "float")
        if measured is None:
            raise DataError(
                "there is nothing to measure mAP against",
                got=f"no boxes of the detector's classes in {budget.dataset.root} ({budget.dataset.summary})",
                expected="labelled images, as COCO json, Pascal VOC or YOLO",
                fix="point --data at labelled images that the detector was not trained on",
            )
        self.map_float = measured
        if not measured:
            raise CheckError(
                "there is no accuracy to keep",
                got="mAP 0 of the float detector",
                expected="a detector that finds something in --data",
                fix="train it first, or leave --max-drop out",
            )

    def tried(self, kept: Sequence[str]) -> _Trial:
        """Quantize with some layers in float and measure, unless that was done."""
        key = tuple(kept)
        if key not in self._trials:
            self._trials[key] = self._try(key)
        return self._trials[key]

    def by_sensitivity(self) -> list[str]:
        """Layers by signal to noise in the encoding that they cost most, the lowest first."""
        from edgedet_calibration.images import spaced
        from edgedet_calibration.sensitivity import measure

        given = self._given
        kept = given.images.again()
        tensors = [kept[place].numpy() for place in spaced(len(kept), _SENSITIVITY_IMAGES)]
        worst: dict[str, float] = {}
        for encoding in self._encodings.values():
            report = measure(given.captured, given.stats, given.recipe, encoding, tensors, self._track)
            for row in report.layers:
                worst[row.layer] = min(worst.get(row.layer, row.worst_snr_db), row.worst_snr_db)
        return sorted(worst, key=worst.__getitem__)

    def report(self, kept: tuple[str, ...], best: _Trial) -> BudgetReport:
        """What was found, with every mAP that the report names."""
        from edgedet_calibration.macs import multiply_accumulates

        macs = multiply_accumulates(self._given.captured.graph_module)
        return BudgetReport(
            max_drop=self._budget.max_drop,
            images=self._images,
            map_float=self.map_float,
            map_before=self._shared(self.tried(()).maps),
            map_after=self._shared(best.maps),
            kept_float=kept,
            float_operators=max(self._left_float(best.recipe, e) for e in self._encodings.values()),
            float_macs_share=sum(macs.get(name, 0) for name in kept) / max(sum(macs.values()), 1),
        )

    def _left_float(self, recipe: Recipe, encoding: Encoding) -> int:
        """How many operators a recipe keeps float that the given one quantizes."""
        from edgedet_calibration.quantize import placed

        quantized = []
        for one in (self._given.recipe, recipe):
            units = placed(self._given.captured, one, encoding)[2].units
            quantized.append({name for unit in units if unit.kind != "move" for name in unit.nodes})
        return len(quantized[0] - quantized[1])

    def _shared(self, maps: Maps) -> Maps:
        """By the names of all encodings that compute the same."""
        return {e.name: maps[e.arithmetic] for e in self._given.encodings if e.arithmetic in maps}

    def _try(self, kept: tuple[str, ...]) -> _Trial:
        from edgedet_calibration.correction import with_corrections
        from edgedet_calibration.quantize import quantize

        given = self._given
        recipe, stats = given.recipe, given.stats
        if kept:
            recipe = recipe.model_copy(update={"float_layers": (*recipe.float_layers, *kept)})
            encodings = self._encodings.values()
            stats = with_corrections(given.captured, stats, recipe, encodings, given.images, self._track)
        maps: Maps = {}
        least = self.map_float * (1 - self._budget.max_drop)
        for arithmetic, encoding in self._encodings.items():
            what = f"{encoding.name}, {len(kept)} layers float"
            maps[arithmetic] = self._map(quantize(given.captured, stats, recipe, encoding), what) or 0.0
            if kept and maps[arithmetic] < least:
                break  # the other encodings cannot make up for it
        return _Trial(recipe, stats, maps, min(maps.values()) >= least)

    def _map(self, graph_module: GraphModule, what: str) -> float | None:
        from edgedet_calibration.reference import Reference

        pipeline = Pipeline(Reference(self._given.captured.spec, graph_module))
        for _ in self._track((what,), f"Measuring {what}"):
            report = evaluate(pipeline, self._budget.dataset, self._track)
        self._images = report.images
        return report.map
