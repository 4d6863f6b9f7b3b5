"""Parity finds planted faults and names the stage that they are in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgedet.bundle import Bundle
from edgedet.errors import BundleError, DataError, MissingError, MissingExtraError, UsageError, VendorError
from edgedet.files import sha256_of
from edgedet.intermediate import Intermediates
from edgedet.parity import ParityReport, ParityRow, load_budgets, run_parity
from edgedet.spec import Provenance


def row_of(report: ParityReport, runtime: str, precision: str) -> ParityRow:
    return next(row for row in report.rows if (row.runtime, row.precision) == (runtime, precision))


def with_decoder(workbench, **changes):
    spec = workbench.bundle.spec
    return spec.model_copy(update={"decoder": spec.decoder.model_copy(update=changes)})


def test_artifacts_that_agree_pass_and_are_measured(workbench):
    report = run_parity(workbench.bundle, workbench.data)
    assert [(row.runtime, row.precision) for row in report.rows] == [
        ("openvino", "fp32"),
        ("ort", "fp32"),
        ("openvino", "int8"),
        ("ort", "int8"),
    ]
    assert report.passed, [row.reasons for row in report.rows]
    exact = row_of(report, "ort", "fp32")
    assert (exact.matched_fraction, exact.max_box_px, exact.map_delta) == (1, 0, 0)
    assert (exact.output_snr_db, exact.output_max_relative_error) == (200, 0)
    assert exact.matched == report.reference.detections > 20
    assert 0.5 < report.reference.map < 1
    assert (report.images, report.boxes) == (10, 40)
    quantized = row_of(report, "ort", "int8")
    assert quantized.output_snr_db == 200  # against the module of its encoding, which has the same error
    assert quantized.max_box_px > 0  # against float


def test_each_image_runs_once_and_everything_is_closed(workbench):
    run_parity(workbench.bundle, workbench.data, limit=4)
    runtimes = [fake for fakes in workbench.opened.values() for fake in fakes]
    assert len(workbench.opened[("reference", "int8")]) == 1, "one module for one encoding"
    assert {fake.runs for fake in runtimes} == {4}
    assert all(fake.closed for fake in runtimes)


@pytest.mark.parametrize(("computes", "runs"), [("", [4, 4]), ("the same", [0, 4])])
def test_references_that_compute_the_same_run_once_for_all(workbench, noisy, computes, runs):
    if not computes:
        workbench.faults["reference", "another"] = noisy("class_logits", 0.1)
        workbench.faults["ort", "int8"] = noisy("class_logits", 0.1)
    quantization = workbench.bundle.artifact("ort", "int8").quantization.model_copy(
        update={"encoding": "another"}
    )
    artifacts = [
        one.model_copy(update={"quantization": quantization})
        if (one.runtime, one.precision) == ("ort", "int8")
        else one
        for one in workbench.bundle.manifest.artifacts
    ]
    manifest = workbench.bundle.manifest.model_copy(update={"artifacts": tuple(artifacts)})
    workbench.computes = computes
    report = run_parity(Bundle(workbench.bundle.root, manifest), workbench.data, limit=4)
    assert sorted(fake.runs for fake in workbench.opened["reference", "int8"]) == runs
    assert row_of(report, "ort", "int8").output_snr_db == 200
    assert row_of(report, "openvino", "int8").output_snr_db == 200


def test_a_fault_in_a_box_weight_is_found_in_the_raw_outputs(workbench, noisy):
    workbench.faults["ort", "fp32"] = noisy("box_offsets", 0.05)
    report = run_parity(workbench.bundle, workbench.data)
    row = row_of(report, "ort", "fp32")
    assert (row.first_stage_over_budget, row.passed, report.passed) == ("raw outputs", False, False)
    assert "box_offsets differs by" in row.reasons[0]
    assert row.max_box_px > 0.02
    assert row_of(report, "openvino", "fp32").passed


def test_an_int8_kernel_fault_is_told_from_the_cost_of_quantization(workbench, noisy):
    quantized, broken = workbench.faults["openvino", "int8"], noisy("class_logits", 0.8)
    workbench.faults["openvino", "int8"] = lambda outputs: broken(quantized(outputs))
    row = row_of(run_parity(workbench.bundle, workbench.data), "openvino", "int8")
    assert row.first_stage_over_budget == "raw outputs"
    assert "class_logits has" in row.reasons[0]


def test_other_decoder_parameters_are_named_and_found_in_the_decoded_boxes(workbench):
    workbench.specs["ort", "fp32"] = with_decoder(workbench, variances=(0.2, 0.2))
    row = row_of(run_parity(workbench.bundle, workbench.data), "ort", "fp32")
    assert row.output_max_relative_error == 0
    assert row.first_stage_over_budget == "decoded boxes"
    assert row.reasons[0].endswith("in decoder.variances: (0.2, 0.2), expected (0.1, 0.2)")
    assert "look at decoding" in row.reasons[1]
    assert "of the boxes before suppression are the same" in row.reasons[1]


@pytest.mark.parametrize(
    ("changes", "stage", "path"),
    [
        ({"name": "another"}, "spec", "name"),
        ({"score_threshold": 0.3}, "detections", "score_threshold"),
        ({"max_detections": 7}, "detections", "max_detections"),
        (
            {"provenance": Provenance(checkpoint_sha256="1" * 64)},
            "spec",
            "provenance.checkpoint_sha256",
        ),
        ({"precision": "int8"}, "spec", "precision"),
    ],
)
def test_a_spec_that_says_anything_else_than_the_bundle_is_a_fault(workbench, changes, stage, path):
    workbench.specs["ort", "fp32"] = workbench.bundle.spec.model_copy(update=changes)
    report = run_parity(workbench.bundle, workbench.data, limit=2)
    row = row_of(report, "ort", "fp32")
    assert (row.first_stage_over_budget, row.passed, report.passed) == (stage, False, False)
    assert f"differs from that of the bundle in {path}: " in row.reasons[0]
    assert row.images == 2, "it is still measured as it stands"
    assert row_of(report, "openvino", "fp32").passed


def test_other_names_of_inputs_and_outputs_are_a_fault_and_not_a_crash(workbench):
    spec = workbench.bundle.spec
    renamed = tuple(o.model_copy(update={"name": f"{o.name}_1"}) for o in spec.outputs)
    fed = spec.input.model_copy(update={"name": "pixels"})
    workbench.specs["ort", "fp32"] = spec.model_copy(update={"outputs": renamed})
    workbench.specs["openvino", "fp32"] = spec.model_copy(update={"input": fed})
    report = run_parity(workbench.bundle, workbench.data, precisions=["fp32"], limit=2)
    row = row_of(report, "ort", "fp32")
    assert (row.first_stage_over_budget, row.images, row.passed) == ("spec", 0, False)
    assert "in outputs: (" in row.reasons[0]
    assert "cannot be compared" in row.reasons[1]
    row = row_of(report, "openvino", "fp32")
    assert (row.first_stage_over_budget, row.images, row.matched_fraction) == ("spec", 2, 1)


def test_a_checkpoint_of_another_detector_is_no_reference(workbench):
    spec = workbench.bundle.spec
    renamed = tuple(o.model_copy(update={"name": f"{o.name}_1"}) for o in spec.outputs)
    workbench.specs["eager", "fp32"] = spec.model_copy(update={"outputs": renamed})
    with pytest.raises(BundleError, match=r"got another outputs; expected the detector that bundle\.json"):
        run_parity(workbench.bundle, workbench.data)


def test_other_suppression_is_found_in_the_detections(workbench):
    def twice(outputs):
        """Every object is seen by a second prior as well."""
        offsets, logits = outputs["box_offsets"].copy(), outputs["class_logits"].copy()
        logits[0, 1::2] = np.maximum(logits[0, 1::2], logits[0, 0::2] - 0.1)
        return {"box_offsets": offsets, "class_logits": logits}

    for key in (("eager", "fp32"), ("ort", "fp32"), ("openvino", "fp32")):
        workbench.faults[key] = twice
    spec = workbench.bundle.spec
    workbench.specs["ort", "fp32"] = spec.model_copy(update={"iou_threshold": 0.95})
    report = run_parity(workbench.bundle, workbench.data, precisions=["fp32"])
    row = row_of(report, "ort", "fp32")
    assert row.first_stage_over_budget == "detections"
    assert row.gained > 0
    assert "in iou_threshold: 0.95, expected 0.45" in row.reasons[0]
    assert "most of class" in row.reasons[1]
    assert "look at suppression" in row.reasons[1]
    assert row_of(report, "openvino", "fp32").passed


def test_another_normalisation_in_the_artifact_is_found_in_the_input_tensor(workbench):
    spec = workbench.bundle.spec
    changed = spec.input.model_copy(update={"mean": (0.0, 0.0, 0.0)})
    workbench.specs["ort", "fp32"] = spec.model_copy(update={"input": changed})
    row = row_of(run_parity(workbench.bundle, workbench.data), "ort", "fp32")
    assert row.first_stage_over_budget == "input tensor"
    assert "spec" not in row.stages_over_budget, "the field is named where it counts"
    assert "in input.mean: (0.0, 0.0, 0.0), expected (123.675, 116.28, 103.53)" in row.reasons[0]
    assert "the input tensor that the artifact is fed differs by" in row.reasons[1]
    assert row.reasons[1].endswith("mean or std")


def test_a_detector_that_sees_nothing_loses_everything(workbench):
    def blind(outputs):
        return {**outputs, "class_logits": outputs["class_logits"] * 0 - np.array([0, 9, 9, 9], np.float32)}

    workbench.faults["ort", "int8"] = blind
    row = row_of(run_parity(workbench.bundle, workbench.data), "ort", "int8")
    assert (row.matched_fraction, row.matched, row.map) == (0, 0, 0)
    assert row.lost > 20
    assert not row.passed
    assert any("0 % of the float mAP is left" in reason for reason in row.reasons)
    assert any("points from that of openvino" in reason for reason in row.reasons)


def test_values_that_are_not_finite_are_a_fault_and_not_a_crash(workbench):
    workbench.faults["ort", "fp32"] = lambda outputs: {
        **outputs,
        "box_offsets": outputs["box_offsets"] * np.nan,
    }
    row = row_of(run_parity(workbench.bundle, workbench.data), "ort", "fp32")
    assert row.first_stage_over_budget == "raw outputs"
    assert "not finite" in row.reasons[0]
    assert row.output_snr_db == -200


def test_a_runtime_that_fails_has_a_row_that_says_so(workbench):
    def broken(outputs):
        raise VendorError("ort could not run model.onnx")

    workbench.faults["ort", "int8"] = broken
    report = run_parity(workbench.bundle, workbench.data)
    row = row_of(report, "ort", "int8")
    assert (row.first_stage_over_budget, row.images, row.map, row.output_snr_db) == ("runtime", 0, None, None)
    assert "images/0.jpg: ort could not run" in row.reasons[0]
    assert row_of(report, "openvino", "int8").passed


def test_other_labels_in_the_artifact_are_a_fault(workbench):
    spec = workbench.bundle.spec
    workbench.specs["ort", "fp32"] = spec.model_copy(update={"labels": ("square", "circle", "cross")})
    row = row_of(run_parity(workbench.bundle, workbench.data), "ort", "fp32")
    assert (row.first_stage_over_budget, row.passed) == ("spec", False)
    assert "in labels: ('square', 'circle', 'cross'), expected ('circle'" in row.reasons[0]


def test_a_float_detector_that_sees_nothing_proves_nothing(workbench):
    def blind(outputs):
        return {**outputs, "class_logits": outputs["class_logits"] * 0 + np.array([9, 0, 0, 0], np.float32)}

    for key in [
        ("reference", "int8"),
        *((a.runtime, a.precision) for a in workbench.bundle.manifest.artifacts),
    ]:
        workbench.faults[key] = blind
    report = run_parity(workbench.bundle, workbench.data)
    assert report.reference.detections == 0
    assert not report.passed
    for row in report.rows:
        assert (row.passed, row.first_stage_over_budget) == (False, "detections")
        assert row.reasons[0] == "nothing to compare: the reference found nothing above 0.4"


def test_runtimes_must_agree_with_each_other_on_map(workbench, tmp_path: Path):
    def misses_some(outputs):
        logits = outputs["class_logits"].copy()
        logits[0, ::3, 0] += 20
        return {**outputs, "class_logits": logits}

    workbench.faults["ort", "int8"] = misses_some
    loose = tmp_path / "loose.toml"
    loose.write_text("[int8]\noutput_min_snr_db = -300\nmin_matched_fraction = 0\nmin_map_fraction = 0\n")
    report = run_parity(workbench.bundle, workbench.data, budgets=load_budgets(loose))
    for name, other in (("ort", "openvino"), ("openvino", "ort")):
        row = row_of(report, name, "int8")
        assert row.first_stage_over_budget == "mAP across runtimes"
        assert f"from that of {other}; the budget is 0.5" in row.reasons[0]


def test_int8_is_not_judged_without_its_reference(workbench):
    workbench.missing["reference"] = MissingExtraError("no torchao", fix='pip install "edgedet[export]"')
    with pytest.raises(MissingExtraError, match="no torchao"):
        run_parity(workbench.bundle, workbench.data)
    assert run_parity(workbench.bundle, workbench.data, precisions=["fp32"]).passed


def test_int8_that_does_not_say_how_it_was_quantized_is_not_judged(workbench):
    artifacts = tuple(
        a.model_copy(update={"quantization": None}) for a in workbench.bundle.manifest.artifacts
    )
    manifest = workbench.bundle.manifest.model_copy(update={"artifacts": artifacts})
    workbench.bundle = Bundle(workbench.bundle.root, manifest)
    with pytest.raises(BundleError, match="without a word on how it was quantized"):
        run_parity(workbench.bundle, workbench.data)


def test_the_worst_images_come_with_what_is_needed_to_draw_them(workbench, noisy):
    def fault(outputs):
        return noisy("box_offsets", 2.0)(outputs) if outputs["box_offsets"][0, 0, 0] > 0 else outputs

    workbench.faults["ort", "fp32"] = fault
    worst = row_of(run_parity(workbench.bundle, workbench.data), "ort", "fp32").worst_images
    badness = [image.lost + image.gained for image in worst]
    assert len(worst) == 3
    assert badness == sorted(badness, reverse=True)
    assert badness[0] > 0
    lost = [thing for thing in worst[0].objects if thing.outcome == "lost"]
    assert lost
    assert all(thing.box_xyxy is None and thing.reference_box_xyxy for thing in lost)


def test_data_without_boxes_is_judged_by_parity_alone(workbench, noisy):
    nothing = {
        "boxes_xyxy": np.empty((0, 4), np.float32),
        "class_ids": np.empty(0, int),
        "ignore": np.empty(0, bool),
    }
    data = type(workbench.data)([replace(image, **nothing) for image in workbench.data.images])
    data.labels = ()
    report = run_parity(workbench.bundle, data)
    assert (report.reference.map, report.rows[0].map, report.rows[0].map_delta) == (None, None, None)
    assert report.passed


def test_no_images_are_no_proof(workbench):
    with pytest.raises(DataError, match="nothing to compare on"):
        run_parity(workbench.bundle, workbench.data, limit=0)


def test_a_runtime_that_is_not_installed_is_skipped_unless_it_was_asked_for(workbench):
    workbench.missing["openvino"] = MissingExtraError("no openvino", fix='pip install "edgedet[openvino]"')
    report = run_parity(workbench.bundle, workbench.data)
    assert {row.runtime for row in report.rows} == {"ort"}
    assert [(one.runtime, one.precision) for one in report.skipped] == [
        ("openvino", "fp32"),
        ("openvino", "int8"),
    ]
    assert "pip install" in report.skipped[0].reason
    assert all(one.missing for one in report.skipped)
    with pytest.raises(MissingError, match="no openvino"):
        run_parity(workbench.bundle, workbench.data, runtimes=["openvino"])


def test_what_the_bundle_does_not_have_is_refused_when_asked_for(workbench):
    with pytest.raises(UsageError, match="there is no runtime of that name"):
        run_parity(workbench.bundle, workbench.data, runtimes=["onnx"])
    with pytest.raises(UsageError, match="tflite"):
        run_parity(workbench.bundle, workbench.data, runtimes=["tflite"])
    with pytest.raises(UsageError, match="ort fp16"):
        run_parity(workbench.bundle, workbench.data, runtimes=["ort"], precisions=["fp16"])
    with pytest.raises(UsageError, match="no precision of that name"):
        run_parity(workbench.bundle, workbench.data, precisions=["int4"])


def test_a_report_survives_its_file(workbench, tmp_path: Path):
    report = run_parity(workbench.bundle, workbench.data, runtimes=["ort"])
    report.save(tmp_path / "parity.json")
    assert ParityReport.load(tmp_path / "parity.json") == report
    (tmp_path / "parity.json").write_text('{"schema_version": 2}')
    with pytest.raises(DataError, match="what `edgedet parity --json` wrote"):
        ParityReport.load(tmp_path / "parity.json")


def test_a_small_sample_is_said_to_be_one_where_chance_decides(workbench):
    report = run_parity(workbench.bundle, workbench.data)
    warning, classes = report.warnings
    assert f"{report.reference.detections} objects in 10 images" in warning
    assert classes.startswith("classes with too few objects are not judged by themselves: circle (")
    assert run_parity(workbench.bundle, workbench.data, precisions=["fp32"]).warnings == ()


def test_classes_add_up_to_the_whole(workbench, noisy):
    workbench.faults["ort", "int8"] = noisy("class_logits", 1.0)
    budgets = load_budgets()
    lenient = budgets.int8.model_copy(update={"threshold_tolerance": 0.3})
    report = run_parity(
        workbench.bundle, workbench.data, budgets=budgets.model_copy(update={"int8": lenient})
    )
    row = row_of(report, "ort", "int8")
    assert min(row.matched, row.excused) > 0
    for name in ("matched", "lost", "gained", "excused"):
        assert sum(getattr(one, name) for one in row.classes) == getattr(row, name)


def test_an_artifact_that_finds_nothing_fails_even_where_every_object_is_near_the_threshold(workbench):
    def dimmed(outputs):
        logits = outputs["class_logits"].copy()
        best = logits[..., 1:].max(axis=2)
        certain = best > logits[..., 0] - 3
        # Every object just above the threshold of 0.4 in float, and just below it in the artifact.
        logits[certain] = -30
        logits[certain, 0], logits[certain, 1] = 0, level
        return {**outputs, "class_logits": logits}

    level = np.log(0.43 / 0.57)
    workbench.faults["eager", "fp32"] = dimmed

    def dimmer(outputs):
        found = dimmed(outputs)
        found["class_logits"] = found["class_logits"] - np.array([0, 0.2, 0.2, 0.2], np.float32)
        return found

    workbench.faults["ort", "int8"] = workbench.faults["reference", "int8"] = dimmer
    row = row_of(run_parity(workbench.bundle, workbench.data), "ort", "int8")
    assert (row.matched, row.lost) == (0, 0)
    assert row.excused > 0
    assert "detections" in row.stages_over_budget
    assert any("not one of the" in reason for reason in row.reasons)


def test_images_that_int8_was_calibrated_on_are_counted(workbench, tmp_path):
    for number, image in enumerate(workbench.data.images[:3]):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(bytes([number]))
        workbench.data.images[number] = replace(image, path=path)
        if number:
            workbench.calibrated_on.add(sha256_of(path))
    report = run_parity(workbench.bundle, workbench.data)
    assert [line for line in report.warnings if "calibrated on" in line] == [
        "2 of 10 images are among those that INT8 was calibrated on, which flatters it; judge it on others: "
        "--split, or calibrate with --split"
    ]
    workbench.calibrated_on.clear()
    assert not any("calibrated on" in line for line in run_parity(workbench.bundle, workbench.data).warnings)


def test_a_runtime_that_gives_no_layers_is_named(workbench, monkeypatch):
    """TensorRT is one: parity goes on without them."""
    fake = type(workbench.open("ort", "int8"))
    monkeypatch.setattr(fake, "intermediates", lambda *_: Intermediates(), raising=False)
    monkeypatch.setattr(fake, "layers", lambda _: None, raising=False)
    report = run_parity(workbench.bundle, workbench.data, ["ort"], ["int8"], layers=True)
    assert "the layers of ort int8 were not compared: its runtime gives none" in report.warnings


def test_objects_that_quantization_loses_are_told_from_those_that_a_runtime_loses(workbench, noisy):
    coarse = noisy("box_offsets", 0.5)
    for key in (("reference", "int8"), ("ort", "int8")):
        workbench.faults[key] = coarse
    row = row_of(run_parity(workbench.bundle, workbench.data), "ort", "int8")
    assert row.first_stage_over_budget == "detections"
    assert "100 % match those of PyTorch that computes the same integers" in row.reasons[0], row.reasons
