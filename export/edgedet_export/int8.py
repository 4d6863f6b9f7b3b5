"""What INT8 is made with: collected, learned or given before, and held to a budget of accuracy.

Calibration is another package, which float exports do without; it is imported inside functions here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgedet import registry
from edgedet.data import Dataset
from edgedet.files import sha256_of, write_atomically
from edgedet.models.capture import Captured
from edgedet.models.checkpoint import read_ranges
from edgedet.progress import Track
from edgedet.spec import Precision, QuantizationSpec
from edgedet_export.accuracy_budget import BudgetReport, Calibrated, hold_budget
from edgedet_export.request import ExportRequest
from edgedet_export.target import Source, Target

if TYPE_CHECKING:
    from edgedet_calibration.encodings import Encoding
    from edgedet_calibration.images import CalibrationImages
    from edgedet_calibration.recipe import Recipe
    from edgedet_calibration.stats import Stats

CALIBRATION = "calibration.json"
RECIPE = "recipe.toml"


@dataclass(frozen=True, slots=True, eq=False)
class Quantization:
    """Statistics and the recipe that reads them.

    Attributes:
        stats: Of the captured graph, with corrections where the recipe asks for them.
        recipe: How it is quantized.
        calibration_sha256: Of the file that holds the statistics.
    """

    stats: Stats
    recipe: Recipe
    calibration_sha256: str

    @staticmethod
    def written(stats: Stats, recipe: Recipe, folder: Path) -> Quantization:
        """Write both into a bundle's folder."""
        write_atomically(folder / CALIBRATION, stats.model_dump_json())
        write_atomically(folder / RECIPE, recipe.to_toml())
        return Quantization(stats, recipe, sha256_of(folder / CALIBRATION))

    @staticmethod
    def read(folder: Path) -> Quantization:
        """Read what was written there."""
        from edgedet_calibration.recipe import Recipe
        from edgedet_calibration.stats import Stats

        path = folder / CALIBRATION
        stats = Stats.from_json(path.read_bytes(), source=str(path))
        return Quantization(stats, Recipe.load(folder / RECIPE), sha256_of(path))

    def source(self, captured: Captured, target: Target, precision: Precision) -> Source:
        """The graph with quantizers in the encoding of a target."""
        from edgedet_calibration.encodings import ENCODINGS
        from edgedet_calibration.quantize import quantize

        recipe, encoding = self.recipe, ENCODINGS[target.encodings[precision]]
        graph_module = quantize(captured, self.stats, recipe, encoding, fold_weights=target.fold_weights)
        quantization = QuantizationSpec(
            encoding=encoding.name,
            observer=recipe.observer,
            granularity=recipe.weights,
            float_layers=recipe.float_layers,
            pair_safe=recipe.pair_safe and encoding.pair_safe,
            calibration_sha256=self.calibration_sha256,
        )
        spec = captured.spec.model_copy(update={"precision": precision, "quantization": quantization})
        return Source(graph_module, captured.example_inputs, spec)


def calibrated(
    request: ExportRequest, captured: Captured, targets: Sequence[Target], folder: Path, track: Track
) -> tuple[Quantization, BudgetReport | None]:
    """Calibrate as a request asks, write what came of it, and say what a budget of accuracy took.

    Raises:
        BundleError: Statistics that were given do not fit the detector or the recipe.
        CheckError: The budget does not hold in INT8.
        DataError: No image can be read.
    """
    from edgedet_calibration.recipe import Recipe

    recipe, stats = request.recipe or Recipe(), request.stats
    learned = read_ranges(request.checkpoint)
    if learned is not None or (stats is not None and stats.ranges):
        recipe = recipe.learned(pair_safe=learned is not None and learned.pair_safe)
    else:
        registry.OBSERVERS.load(recipe.observer)
    recipe.check_names(node.name for node in captured.graph_module.graph.nodes)
    encodings = _encodings(request, targets)
    images = _images(request, captured, recipe)
    if stats is not None:
        _check_reusable(stats, captured, recipe, encodings)
    else:
        stats = _collected(request, captured, recipe, encodings, images, track)
    budget = None
    if request.budget is not None:
        assert images is not None
        given = Calibrated(captured, stats, recipe, encodings, images)
        recipe, stats, budget = hold_budget(given, request.budget, track)
    return Quantization.written(stats, recipe, folder), budget


def _encodings(request: ExportRequest, targets: Sequence[Target]) -> list[Encoding]:
    """Those of all artifacts that were asked for."""
    from edgedet_calibration.encodings import ENCODINGS

    return [
        ENCODINGS[target.encodings[precision]]
        for precision in request.precisions
        for target in targets
        if precision in target.encodings
    ]


def _images(request: ExportRequest, captured: Captured, recipe: Recipe) -> CalibrationImages | None:
    from edgedet_calibration.images import CalibrationImages

    dataset: Dataset | None = request.calibration
    if dataset is None and request.budget is not None:
        dataset = request.budget.dataset
    return None if dataset is None else CalibrationImages(dataset, captured.spec.input, recipe.images)


def _collected(
    request: ExportRequest,
    captured: Captured,
    recipe: Recipe,
    encodings: Sequence[Encoding],
    images: CalibrationImages | None,
    track: Track,
) -> Stats:
    from edgedet_calibration.calibrate import calibrate
    from edgedet_calibration.correction import with_corrections
    from edgedet_calibration.stats import Stats

    if learned := read_ranges(request.checkpoint):
        spec = captured.spec
        return Stats.learned(spec.provenance.checkpoint_sha256, spec.input, learned.tensors)
    assert images is not None
    stats = calibrate(captured, images, recipe, track)
    return with_corrections(captured, stats, recipe, encodings, images, track)


def _check_reusable(stats: Stats, captured: Captured, recipe: Recipe, encodings: Sequence[Encoding]) -> None:
    """Refuse what does not fit before anything is converted."""
    from edgedet_calibration.placement import place

    spec, placement = captured.spec, place(captured.graph_module, recipe.keeps_float)
    stats.check_fits(spec.provenance.checkpoint_sha256, spec.input, placement.ranges)
    stats.check_reusable(recipe, [encoding.arithmetic for encoding in encodings])
