"""A budget of accuracy puts back to float what it must, and nothing else."""

from __future__ import annotations

import copy
from pathlib import Path

import cv2
import pytest
import torch

from edgedet.data import Dataset, open_dataset
from edgedet.data.synthetic import SyntheticDataset
from edgedet.errors import CheckError, DataError, UsageError
from edgedet.models.capture import Captured, capture, parameter_of
from edgedet.models.checkpoint import load_checkpoint
from edgedet_calibration.calibrate import calibrate
from edgedet_calibration.collect import collect
from edgedet_calibration.correction import with_corrections
from edgedet_calibration.encodings import ENCODINGS
from edgedet_calibration.images import CalibrationImages
from edgedet_calibration.placement import place
from edgedet_calibration.recipe import Recipe
from edgedet_export.accuracy_budget import AccuracyBudget, BudgetReport, Calibrated, _smallest, hold_budget

FRAGILE = "conv2d_6"
IMAGES = 10


@pytest.fixture(scope="module")
def captured(trained: Path) -> Captured:
    with torch.no_grad():
        return capture(load_checkpoint(trained))


@pytest.fixture(scope="module")
def judge() -> Dataset:
    return SyntheticDataset("test", size=IMAGES)


def with_fragile_layer(captured: Captured) -> Captured:
    """The same function but for one channel, whose huge weights leave the others no steps of a common scale.

    The bias keeps that channel below the clamp, so that its readers see zeros: nothing but the weights of
    this one layer is hard to quantize.
    """
    graph_module = copy.deepcopy(captured.graph_module)
    node = next(n for n in graph_module.graph.nodes if n.name == FRAGILE)
    weight, bias = (parameter_of(graph_module, node.args[i]) for i in (1, 2))
    assert weight is not None
    assert bias is not None
    quietest = int(weight.abs().flatten(1).amax(1).argmin())
    with torch.no_grad():
        weight[quietest] *= 1000 * float(weight.abs().max()) / float(weight[quietest].abs().max())
        bias[quietest] = -1e6
    return Captured(graph_module, captured.spec)


def calibrated(captured: Captured, recipe: Recipe) -> Calibrated:
    images = CalibrationImages(SyntheticDataset("val", size=4), captured.spec.input, recipe.images)
    stats = collect(captured, place(captured.graph_module), images)
    return Calibrated(captured, stats, recipe, [ENCODINGS["onnxruntime"], ENCODINGS["tflite"]], images)


@pytest.mark.slow
def test_the_one_fragile_layer_is_found_and_the_accuracy_kept(captured: Captured, judge: Dataset) -> None:
    recipe = Recipe(images=4, weights="per_tensor", bias_correction=False, rounding="nearest")
    given = calibrated(with_fragile_layer(captured), recipe)
    found, _, report = hold_budget(given, AccuracyBudget(0.2, judge))
    assert report.kept_float == found.float_layers == (FRAGILE,)
    assert set(report.map_after) == {"onnxruntime", "tflite"}
    assert max(report.map_before.values()) < 0.8 * report.map_float
    assert min(report.map_after.values()) >= 0.8 * report.map_float
    assert report.float_operators == 2
    assert 0 < report.float_macs_share < 0.1
    assert FRAGILE in "\n".join(report.lines())


@pytest.mark.slow
def test_what_is_kept_float_is_corrected_for_with_everything_switched_on(
    captured: Captured, judge: Dataset
) -> None:
    recipe, fragile = Recipe(images=4, weights="per_tensor"), with_fragile_layer(captured)
    images = CalibrationImages(SyntheticDataset("val", size=4), captured.spec.input, 4)
    encodings = [ENCODINGS["onnxruntime"]]
    stats = with_corrections(fragile, calibrate(fragile, images, recipe), recipe, encodings, images)
    given = Calibrated(fragile, stats, recipe, encodings, images)
    found, corrected, report = hold_budget(given, AccuracyBudget(0.02, judge))
    assert report.map_before["onnxruntime"] < 0.98 * report.map_float <= report.map_after["onnxruntime"]
    assert found.float_layers
    assert corrected.channel_factors == stats.channel_factors
    steps = corrected.corrections["affine lowered"].weight_steps
    assert not set(found.float_layers) & set(steps)
    assert steps.keys() < stats.corrections["affine lowered"].weight_steps.keys()


@pytest.mark.slow
def test_nothing_changes_where_the_budget_holds(captured: Captured, judge: Dataset) -> None:
    given = calibrated(captured, Recipe(images=4, bias_correction=False, rounding="nearest"))
    recipe, stats, report = hold_budget(given, AccuracyBudget(0.5, judge))
    assert recipe is given.recipe
    assert stats is given.stats
    assert report.kept_float == ()
    assert report.map_before == report.map_after
    assert "every layer in INT8" in "\n".join(report.lines())


def test_images_without_boxes_cannot_judge(captured: Captured, tmp_path: Path) -> None:
    image = SyntheticDataset("test", size=1)[0].image_bgr
    cv2.imwrite(str(tmp_path / "photo.png"), image)
    given = calibrated(captured, Recipe(images=1, bias_correction=False, rounding="nearest"))
    with pytest.raises(DataError, match="no boxes"):
        hold_budget(given, AccuracyBudget(0.1, open_dataset(str(tmp_path))))


@pytest.mark.parametrize("share", [-0.01, 1.0, float("nan")])
def test_a_drop_that_is_no_share_is_refused(share: float, judge: Dataset) -> None:
    with pytest.raises(UsageError, match="no budget"):
        AccuracyBudget(share, judge)


@pytest.mark.parametrize("needed", range(1, 24))
def test_the_smallest_number_of_layers_is_found_in_few_trials(needed: int) -> None:
    tried: list[int] = []

    def holds(number: int) -> bool:
        tried.append(number)
        return number >= needed

    assert _smallest(23, holds) == needed
    assert len(tried) <= 2 * needed.bit_length()
    assert max(tried) <= 23


def test_no_number_of_layers_is_found_where_none_holds() -> None:
    assert _smallest(9, lambda _: False) is None
    assert _smallest(0, lambda _: False) is None


def test_an_artifact_that_lost_what_its_graph_kept_is_refused() -> None:
    report = BudgetReport(
        max_drop=0.01, images=10, map_float=0.6, map_before={"tflite": 0.5}, map_after={"tflite": 0.6}
    )
    judged = report.with_artifact("onnx int8", 0.595)
    assert "as written: onnx int8 59.50" in judged.lines()
    with pytest.raises(CheckError, match=r"tflite int8 does not hold .* got mAP 59\.30 .* 59\.40 at least"):
        judged.with_artifact("tflite int8", 0.593)
