"""Each class has a budget of its own, so that a mean over all does not hide the loss of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgedet.errors import ConfigError
from edgedet.parity import Budgets, ParityReport, ParityRow, load_budgets, run_parity

LABELS = ("circle", "square", "cross")  # of the workbench

# All but the class limits is out of the way.
LOOSE = """
[int8]
output_min_snr_db = -300
min_matched_fraction = 0
min_map_fraction = 0
max_cross_runtime_map_points = 100
"""


def budgets(folder: Path, text: str) -> Budgets:
    path = folder / "budgets.toml"
    path.write_text(LOOSE + text)
    return load_budgets(path)


def row_of(report: ParityReport, runtime: str = "ort", precision: str = "int8") -> ParityRow:
    return next(row for row in report.rows if (row.runtime, row.precision) == (runtime, precision))


@pytest.fixture
def crosses_lost(workbench):
    """An artifact that finds no cross, the third class."""

    def blind(outputs):
        logits = outputs["class_logits"].copy()
        logits[..., 1 + LABELS.index("cross")] -= 20
        return {**outputs, "class_logits": logits}

    quantized = workbench.faults["ort", "int8"]
    workbench.faults["ort", "int8"] = lambda outputs: blind(quantized(outputs))
    return workbench


def test_a_class_that_is_lost_fails_by_its_name_with_the_images(crosses_lost, tmp_path):
    limits = '[int8.classes."*"]\nmin_objects = 5\nmin_matched_fraction = 0.9\nmin_ap_fraction = 0.9\n'
    row = row_of(run_parity(crosses_lost.bundle, crosses_lost.data, budgets=budgets(tmp_path, limits)))
    assert (row.first_stage_over_budget, row.stages_over_budget) == ("detections", ("detections", "mAP"))
    matches, precision = row.reasons
    assert matches.startswith("class cross: 0 % of detections match at IoU 0.8; the budget is 90 %")
    assert "worst images: images/" in matches
    assert precision.startswith("class cross: 0 % of the float AP is left, 0.00 of ")
    assert "the budget is 90 %; worst images: images/" in precision
    circle, _, cross = row.classes
    assert cross.ap == 0
    assert cross.reference_ap > 0.3
    assert cross.ap_delta == -cross.reference_ap
    assert circle.ap == pytest.approx(circle.reference_ap, abs=0.1)


def test_one_class_may_have_limits_of_its_own_and_takes_the_others_from_all(crosses_lost, tmp_path):
    limits = '[int8.classes."*"]\nmin_objects = 5\n[int8.classes.cross]\nmin_matched_fraction = 0\n'
    found = budgets(tmp_path, limits)
    assert found.int8.of_class("cross").min_ap_fraction == load_budgets().int8.of_class("*").min_ap_fraction
    assert found.int8.of_class("cross").min_objects == 5
    assert found.int8.of_class("circle").min_matched_fraction == 0.9
    assert found.int8_a16 == load_budgets().int8_a16
    row = row_of(run_parity(crosses_lost.bundle, crosses_lost.data, budgets=found))
    assert row.stages_over_budget == ("mAP",)
    limits += "min_ap_fraction = 0\nmax_ap_drop_points = 1\n"
    row = row_of(run_parity(crosses_lost.bundle, crosses_lost.data, budgets=budgets(tmp_path, limits)))
    (reason,) = row.reasons
    assert reason.startswith("class cross: AP fell by ")
    assert "; the budget is 1; worst images" in reason


def test_a_class_with_too_few_objects_is_said_and_not_judged(crosses_lost, tmp_path):
    report = run_parity(crosses_lost.bundle, crosses_lost.data, budgets=budgets(tmp_path, ""))
    row = row_of(report)
    assert row.passed
    assert {one.label for one in row.classes if one.unjudged} == set(LABELS), "30 objects are asked for"
    (said,) = [line for line in report.warnings if "too few objects" in line]
    for one in row.classes:
        assert f"{one.label} (" in said
        assert f"{one.boxes} of 30 labelled boxes" in one.unjudged
    limits = '[int8.classes."*"]\nmin_matched_fraction = 0\nmin_ap_fraction = 0\n'
    report = run_parity(crosses_lost.bundle, crosses_lost.data, budgets=budgets(tmp_path, limits))
    assert not any("too few objects" in line for line in report.warnings), "nothing asks for a judgement"


def test_a_class_that_the_detector_does_not_have_is_refused_before_any_work(workbench, tmp_path):
    limits = "[int8.classes.Platelets]\nmin_ap_fraction = 0.9\n"
    with pytest.raises(
        ConfigError, match=r"int8 name a class .*got Platelets; expected some of circle, square, cross"
    ):
        run_parity(workbench.bundle, workbench.data, budgets=budgets(tmp_path, limits))
    assert not workbench.opened


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[int8.classes.cross]\nmin_ap_fractoin = 1\n", "int8.classes.cross.min_ap_fractoin"),
        ("[int8.classes.cross]\nmin_objects = 0\n", "int8.classes.cross.min_objects"),
        ("[int8.classes]\ncross = 3\n", "int8.classes.cross"),
        ("[fp32]\nclasses = 3\n", "fp32.classes"),
        ("[baseline]\nmax_map_drop = 1\n", "baseline.max_map_drop"),
    ],
)
def test_limits_that_cannot_be_meant_are_refused_by_name(tmp_path, text, named):
    path = tmp_path / "budgets.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named):
        load_budgets(path)


def test_each_image_is_judged_by_itself_and_the_worst_come_first(crosses_lost, tmp_path):
    loose = budgets(tmp_path, '[int8.classes."*"]\nmin_matched_fraction = 0\nmin_ap_fraction = 0\n')
    strict = loose.model_copy(update={"int8": loose.int8.model_copy(update={"min_matched_fraction": 0.97})})
    row = row_of(run_parity(crosses_lost.bundle, crosses_lost.data, budgets=strict))
    images = row.differing_images
    with_lost = [image for image in images if image.lost]
    assert sum(image.lost for image in images) == row.lost > 3
    assert [image.lost + image.gained for image in images] == sorted(
        (image.lost + image.gained for image in images), reverse=True
    )
    assert {image.classes for image in with_lost} == {("cross",)}
    assert {image.first_stage_over_budget for image in with_lost} == {"decoded boxes"}
    assert images[0].image_id == row.worst_images[0].image_id
    assert len(images) < len(crosses_lost.data), "images without a cross are left out"
    assert row_of(run_parity(crosses_lost.bundle, crosses_lost.data), "ort", "fp32").differing_images == ()


def test_an_image_with_noise_in_its_raw_outputs_is_named(workbench, noisy):
    broken, seed = noisy("box_offsets", 0.05), []

    def fault(outputs):
        seed.append(outputs)
        return broken(outputs) if len(seed) == 4 else outputs

    workbench.faults["ort", "fp32"] = fault
    row = row_of(run_parity(workbench.bundle, workbench.data, precisions=["fp32"]), "ort", "fp32")
    (image,) = row.differing_images
    assert (image.image_id, image.first_stage_over_budget) == ("images/3.jpg", "raw outputs")
    assert image.output_snr_db < 60
    assert np.isclose(row.max_box_px, image.max_box_px)


def test_so_many_images_are_kept_and_the_rest_is_counted(crosses_lost, tmp_path, monkeypatch):
    whole = row_of(run_parity(crosses_lost.bundle, crosses_lost.data))
    monkeypatch.setattr("edgedet.parity.images.MOST_IMAGES", 2)
    row = row_of(run_parity(crosses_lost.bundle, crosses_lost.data))
    assert row.differing_images == whole.differing_images[:2]
    assert row.differing_images_left_out == len(whole.differing_images) - 2 > 0
