"""What quantizing each layer alone costs: signal to noise of the raw outputs, and mAP of the worst.

All else stays float, so that the figures of layers add up to no total; they say where to look, and in which
order layers go back to float first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from edgedet.boxes import Floats
from edgedet.data import Dataset
from edgedet.data.dataset import nothing_to
from edgedet.decode import decode
from edgedet.evaluate import Evaluator, evaluation_spec, shared_classes, with_detector_classes
from edgedet.models.capture import Captured, capture
from edgedet.models.checkpoint import load_checkpoint, read_ranges
from edgedet.parity.compare import OutputComparison
from edgedet.preprocess import preprocess
from edgedet.progress import Track, silent
from edgedet.saved import SavedValue
from edgedet.spec import Value
from edgedet_calibration.calibrate import calibrate
from edgedet_calibration.encodings import ENCODINGS, Encoding
from edgedet_calibration.images import CalibrationImages, calibration_images
from edgedet_calibration.isolation import Isolation, Layer
from edgedet_calibration.macs import multiply_accumulates
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import Stats


class LayerSensitivity(Value):
    """One layer.

    Attributes:
        layer: The name that keeps it float in `Recipe.float_layers`.
        kind: "weighted", "elementwise", "activation" or "pool".
        operators: How many it holds.
        macs_share: Of the detector's multiply-accumulates, 0..1.
        snr_db: Of every raw output against float, with this layer alone quantized.
        map_drop: mAP of float less that with this layer alone quantized, 0..1; None where not measured.
    """

    layer: str
    kind: str
    operators: int
    macs_share: float
    snr_db: dict[str, float]
    map_drop: float | None = None

    @property
    def worst_snr_db(self) -> float:
        """Of the output that suffers most."""
        return min(self.snr_db.values())


class SensitivityReport(SavedValue):
    """All layers in the order of the graph.

    Attributes:
        encoding: Name of the encoding that they were quantized in.
        images: How many the signal to noise was measured on.
        map_float: mAP of the float detector, 0..1, where drops of mAP were measured.
        map_images: On how many images.
    """

    command: ClassVar[str] = "edgedet sensitivity"

    schema_version: Literal[1] = 1
    encoding: str
    images: int
    map_float: float | None = None
    map_images: int = 0
    layers: tuple[LayerSensitivity, ...]

    def worst(self, count: int | None = None) -> tuple[LayerSensitivity, ...]:
        """The layers, or so many of them, that cost the outputs most, the worst first."""
        return tuple(sorted(self.layers, key=lambda one: one.worst_snr_db)[:count])


@dataclass(frozen=True, slots=True)
class SensitivityRequest:
    """What to measure.

    Attributes:
        checkpoint: A self-describing .safetensors file.
        calibration: Images to calibrate on and to compare outputs on.
        encoding: A name of `edgedet_calibration.encodings.ENCODINGS`.
        recipe: How to quantize, a TOML file; the default one if not given.
        data: Labelled images to measure mAP on, if that is wanted.
        images: How many images outputs are compared on.
        worst: How many layers mAP is measured of.
    """

    checkpoint: Path
    calibration: Dataset
    encoding: str
    recipe: Path | None = None
    data: Dataset | None = None
    images: int = 8
    worst: int = 10


def report_sensitivity(request: SensitivityRequest, track: Track = silent) -> SensitivityReport:
    """Calibrate a checkpoint and measure its layers one by one.

    Raises:
        CheckpointError: The checkpoint cannot be loaded.
        ConfigError: The recipe cannot be read, or names layers that are not there.
        DataError: No image can be read, or labels and detector have no class in common.
    """
    recipe = Recipe() if request.recipe is None else Recipe.load(request.recipe)
    encoding = ENCODINGS[request.encoding]
    with torch.no_grad():
        captured = capture(load_checkpoint(request.checkpoint))
    recipe.check_names(node.name for node in captured.graph_module.graph.nodes)
    if learned := read_ranges(request.checkpoint):
        recipe = recipe.learned(pair_safe=learned.pair_safe)
        stats = Stats.learned(
            captured.spec.provenance.checkpoint_sha256, captured.spec.input, learned.tensors
        )
    else:
        images = CalibrationImages(request.calibration, captured.spec.input, recipe.images)
        stats = calibrate(captured, images, recipe, track)
    shown = calibration_images(request.calibration, request.images)
    tensors = [preprocess(image.image_bgr, captured.spec.input)[0] for image in shown]
    if request.data is None:
        return measure(captured, stats, recipe, encoding, tensors, track)
    return measure_with_map(captured, stats, recipe, encoding, tensors, request.data, request.worst, track)


def measure(
    captured: Captured,
    stats: Stats,
    recipe: Recipe,
    encoding: Encoding,
    tensors: Sequence[Floats],
    track: Track = silent,
) -> SensitivityReport:
    """Signal to noise of the raw outputs with each layer alone quantized.

    Args:
        captured: The float graph.
        stats: Of its tensors.
        recipe: How ranges are chosen; what it keeps float is not measured.
        encoding: How activations are written.
        tensors: Input tensors of real images.
        track: Shows progress.
    """
    return _measured(Isolation(captured, stats, recipe, encoding), captured, encoding, tensors, track)


def measure_with_map(
    captured: Captured,
    stats: Stats,
    recipe: Recipe,
    encoding: Encoding,
    tensors: Sequence[Floats],
    dataset: Dataset,
    count: int = 10,
    track: Track = silent,
) -> SensitivityReport:
    """The same, and the drop of mAP on labelled images for the `count` layers of the lowest signal to noise.

    Raises:
        DataError: Data set and detector share no class, or no image can be read.
        MissingExtraError: faster-coco-eval is not installed.
    """
    isolation = Isolation(captured, stats, recipe, encoding)
    report = _measured(isolation, captured, encoding, tensors, track)
    worst = {row.layer for row in report.worst(count)}
    chosen = [layer for layer in isolation.layers if layer.name in worst]
    maps, images = _maps(isolation, chosen, captured, dataset, track)
    map_float = maps.pop("")
    rows = [
        row.model_copy(update={"map_drop": _less(map_float, maps[row.layer])}) if row.layer in maps else row
        for row in report.layers
    ]
    return report.model_copy(update={"layers": tuple(rows), "map_float": map_float, "map_images": images})


def _less(whole: float | None, found: float | None) -> float | None:
    return None if whole is None or found is None else whole - found


def _measured(
    isolation: Isolation, captured: Captured, encoding: Encoding, tensors: Sequence[Floats], track: Track
) -> SensitivityReport:
    names = [output.name for output in captured.spec.outputs]
    comparisons = {layer.name: OutputComparison(names) for layer in isolation.layers}
    for layer, wanted, found in track(
        _outputs(isolation, isolation.layers, tensors),
        f"Layers alone in {encoding.name}",
        len(tensors) * len(isolation.layers),
    ):
        comparisons[layer.name].add(wanted, found)
    macs = multiply_accumulates(captured.graph_module)
    rows = [_row(layer, comparisons[layer.name], macs) for layer in isolation.layers]
    return SensitivityReport(encoding=encoding.name, images=len(tensors), layers=tuple(rows))


def _outputs(
    isolation: Isolation, layers: Iterable[Layer], tensors: Iterable[Floats]
) -> Iterable[tuple[Layer, dict[str, Any], dict[str, Any]]]:
    """For every image and layer the raw outputs in float and with that layer quantized."""
    for tensor in tensors:
        values = isolation.float_values(torch.from_numpy(tensor))
        wanted = isolation.outputs(values)
        for layer in layers:
            yield layer, wanted, isolation.outputs(isolation.with_layer(values, layer))


def _row(layer: Layer, comparison: OutputComparison, macs: Mapping[str, int]) -> LayerSensitivity:
    nodes = [name for unit in layer.units for name in unit.nodes]
    return LayerSensitivity(
        layer=layer.name,
        kind=layer.kind,
        operators=len(nodes),
        macs_share=sum(macs.get(name, 0) for name in nodes) / max(sum(macs.values()), 1),
        snr_db={output.name: output.snr_db for output in comparison.differences()},
    )


def _maps(
    isolation: Isolation, layers: Sequence[Layer], captured: Captured, dataset: Dataset, track: Track
) -> tuple[dict[str, float | None], int]:
    """The mAP by layer, under "" that of float, and the number of images."""
    spec = evaluation_spec(captured.spec)
    mapping = shared_classes(dataset.labels, spec.labels)
    evaluators = {name: Evaluator(spec.labels) for name in ("", *(layer.name for layer in layers))}
    for image in track(dataset, "mAP of the worst layers", len(dataset)):
        tensor, geometry = preprocess(image.image_bgr, spec.input)
        labelled = with_detector_classes(image, mapping)
        values = isolation.float_values(torch.from_numpy(tensor))
        evaluators[""].add(labelled, decode(isolation.outputs(values), spec, geometry))
        for layer in layers:
            found = isolation.outputs(isolation.with_layer(values, layer))
            evaluators[layer.name].add(labelled, decode(found, spec, geometry))
    reports = {name: evaluator.report() for name, evaluator in evaluators.items()}
    if not reports[""].images:
        raise nothing_to("measure mAP on", dataset)
    return {name: report.map for name, report in reports.items()}, reports[""].images
