"""A run is held against an earlier one: what became worse is named by artifact, stage and class."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edgedet.errors import DataError, VendorError
from edgedet.parity import ParityReport, compare_with_baseline, load_budgets, run_parity
from edgedet.processor import Processor
from edgedet.selection import Skipped


@pytest.fixture
def earlier(workbench) -> ParityReport:
    return run_parity(workbench.bundle, workbench.data)


def changed(report: ParityReport, runtime: str, precision: str, **changes) -> ParityReport:
    rows = tuple(
        row.model_copy(update=changes) if (row.runtime, row.precision) == (runtime, precision) else row
        for row in report.rows
    )
    return report.model_copy(update={"rows": rows})


def test_the_same_run_twice_is_no_worse(workbench, earlier):
    found = compare_with_baseline(run_parity(workbench.bundle, workbench.data), earlier)
    assert (found.passed, found.regressions, found.differences, found.new) == (True, (), (), ())
    assert len(found.rows) == 4
    for row in found.rows:
        assert (row.map_change, row.matched_fraction_change, row.snr_change_db) == (0, 0, 0)
        assert all(one.ap_change == one.matched_fraction_change == 0 for one in row.classes)
        assert row.same_file


def test_a_class_that_is_lost_since_is_named_with_stage_and_artifact(workbench, earlier, tmp_path):
    def blind(outputs):
        logits = outputs["class_logits"].copy()
        logits[..., 3] -= 20
        return {**outputs, "class_logits": logits}

    quantized = workbench.faults["ort", "int8"]
    workbench.faults["ort", "int8"] = lambda outputs: blind(quantized(outputs))
    strict = tmp_path / "budgets.toml"
    strict.write_text('[int8.classes."*"]\nmin_objects = 1\n')
    found = compare_with_baseline(
        run_parity(workbench.bundle, workbench.data, budgets=load_budgets(strict)), earlier
    )
    assert not found.passed
    assert {one.name for one in found.regressions} == {"ort int8"}
    named = [(one.stage, one.label) for one in found.regressions]
    assert named == [
        ("raw outputs", ""),
        ("detections", "cross"),
        ("detections", "cross"),
        ("mAP", ""),
        ("mAP", "cross"),
    ]
    detections, matches, average, cross = (one.reason for one in found.regressions[1:])
    assert matches.startswith("class cross: 0.00 % of detections match, 100.00 % in the baseline")
    assert "100.00 % in the baseline; the limit is a fall of 1 points; class cross changed most" in detections
    assert average.startswith("mAP ")
    assert cross.startswith("class cross: AP 0.00, ")
    assert cross.endswith("in the baseline; the limit is a fall of 2")


@pytest.mark.parametrize(
    ("change", "limit", "stage"),
    [
        ({"map": 0.10}, {"max_map_drop_points": 5.0}, "mAP"),
        ({"matched_fraction": 0.90}, {"max_matched_drop": 0.05}, "detections"),
        ({"output_snr_db": 190.0}, {"max_snr_drop_db": 5.0}, "raw outputs"),
    ],
)
def test_each_limit_is_the_users_and_what_lies_within_it_passes(earlier, change, limit, stage):
    ((name, value),) = change.items()
    worse = changed(earlier, "ort", "int8", **change)
    (row,) = [row for row in earlier.rows if (row.runtime, row.precision) == ("ort", "int8")]
    fall = (getattr(row, name) - value) * (100 if name == "map" else 1)
    ((key, _),) = limit.items()
    for allowed, regressions in ((fall * 0.9, 1), (fall, 0), (fall * 1.1, 0)):
        limits = load_budgets().baseline.model_copy(update={key: allowed})
        report = worse.model_copy(update={"budgets": worse.budgets.model_copy(update={"baseline": limits})})
        found = compare_with_baseline(report, earlier)
        assert [one.stage for one in found.regressions] == [stage] * regressions
    better = compare_with_baseline(earlier, worse)
    assert better.passed, "getting better is no regression"


def test_a_setting_of_the_detector_that_changed_is_said_with_its_stage(earlier):
    spec = earlier.spec
    assert spec is not None
    mean = spec.input.model_copy(update={"mean": (127.5, 127.5, 127.5)})
    before = spec.model_copy(update={"input": mean, "iou_threshold": 0.8, "score_threshold": 0.9})
    found = compare_with_baseline(earlier, earlier.model_copy(update={"spec": before}))
    assert [line.split(":")[0] for line in found.differences] == [
        "the detector has another input.mean, which changes input tensor and what follows",
        "the detector has another iou_threshold, which changes detections and what follows",
    ]
    assert "(127.5, 127.5, 127.5) in the baseline" in found.differences[0]


def test_a_class_with_few_objects_is_not_judged(earlier):
    """One object of three is most of an average precision."""
    (row,) = [row for row in earlier.rows if (row.runtime, row.precision) == ("ort", "int8")]
    first, *others = row.classes

    def with_objects(count: int, ap: float, lost: int) -> ParityReport:
        one = first.model_copy(update={"boxes": count, "ap": ap, "matched": count - lost, "lost": lost})
        return changed(earlier, "ort", "int8", classes=(one, *others))

    for count, stages in ((3, []), (30, ["detections", "mAP"])):
        before, now = with_objects(count, 0.9, 0), with_objects(count, 0.6, count // 3)
        found = compare_with_baseline(now, before).regressions
        assert [one.stage for one in found if one.label == first.label] == stages


def test_an_artifact_that_fails_midway_is_a_regression(workbench, earlier):
    quantized, seen = workbench.faults["ort", "int8"], []

    def failing(outputs):
        seen.append(1)
        if len(seen) > 3:
            raise VendorError("it stopped", got="a", expected="b", fix="c")
        return quantized(outputs)

    workbench.faults["ort", "int8"] = failing
    (found,) = compare_with_baseline(run_parity(workbench.bundle, workbench.data), earlier).regressions
    assert (found.name, found.stage) == ("ort int8", "runtime")
    assert found.reason == f"it ran on 3 images, and on {earlier.images} in the baseline"


def test_an_artifact_that_is_gone_fails_unless_it_was_not_asked_for(workbench, earlier):
    report = run_parity(workbench.bundle, workbench.data, runtimes=["ort"])
    found = compare_with_baseline(report, earlier, runtimes=["ort"])
    assert found.passed
    assert [row.runtime for row in found.rows] == ["ort", "ort"]
    found = compare_with_baseline(report, earlier)
    assert [(one.name, one.stage) for one in found.regressions] == [
        ("openvino fp32", "runtime"),
        ("openvino int8", "runtime"),
    ]
    assert "was not compared now" in found.regressions[0].reason
    assert compare_with_baseline(earlier, report).new == ("openvino fp32", "openvino int8")


def on(report: ParityReport, *names: str) -> ParityReport:
    """The report as if its rows had been found on each of some devices."""
    return report.model_copy(
        update={
            "rows": tuple(row.model_copy(update={"device": name}) for name in names for row in report.rows),
            "devices": {name: report.environment for name in names if name != "local"},
        }
    )


def test_a_device_that_was_not_asked_for_is_said_and_is_no_regression(earlier):
    both = on(earlier, "local", "ssh://pi")
    found = compare_with_baseline(earlier, both, devices=["local"])
    assert (found.passed, len(found.rows)) == (True, 4)
    assert found.differences == ("what the baseline has of ssh://pi was not asked for",)
    found = compare_with_baseline(earlier, both, devices=["local", "ssh://pi"])
    assert {one.device for one in found.regressions} == {"ssh://pi"}
    found = compare_with_baseline(on(earlier, "ssh://pi"), both, devices=["ssh://pi"])
    assert (found.passed, {row.device for row in found.rows}) == (True, {"ssh://pi"})


def test_a_row_is_compared_with_that_of_its_own_device(earlier):
    both = on(earlier, "local", "ssh://pi")
    worse = both.model_copy(
        update={
            "rows": tuple(
                row.model_copy(update={"output_snr_db": 1.0}) if row.name == "ort int8" else row
                for row in both.rows
            )
        }
    )
    (regression,) = compare_with_baseline(worse, both).regressions
    assert (regression.name, regression.device) == ("ort int8", "local")


def test_why_an_artifact_is_gone_is_what_its_own_device_said(earlier):
    baseline = on(earlier, "local", "ssh://pi", "ssh://zero")
    reasons = ("ort is not installed here", "ssh://pi: no ort on the pi", "ssh://zero: no ort on the zero")
    report = baseline.model_copy(
        update={
            "rows": tuple(row for row in baseline.rows if row.runtime != "ort" or row.precision != "int8"),
            "skipped": tuple(Skipped(runtime="ort", precision="int8", reason=reason) for reason in reasons),
        }
    )
    found = compare_with_baseline(report, baseline, devices=["local", "ssh://pi", "ssh://zero"])
    said = {one.device: one.reason.split(": ", 1)[1] for one in found.regressions}
    assert said == {
        "local": "ort is not installed here",
        "ssh://pi": "no ort on the pi",
        "ssh://zero": "no ort on the zero",
    }


def test_a_device_with_another_port_is_the_same_device_unless_ports_tell_two_apart(earlier):
    baseline, now = on(earlier, "ssh://root@pi:2201"), on(earlier, "ssh://root@pi:2202")
    found = compare_with_baseline(now, baseline, devices=["ssh://root@pi:2202"])
    assert (found.passed, found.new, len(found.rows)) == (True, (), 4)
    assert found.differences == ("ssh://root@pi:2202 was ssh://root@pi:2201 in the baseline",)
    two = on(earlier, "ssh://root@pi:2201", "ssh://root@pi:2203")
    with pytest.raises(DataError, match="use the same images, --split, --limit and --device"):
        compare_with_baseline(now, two, devices=["ssh://root@pi:2202"])


def test_another_processor_or_package_of_a_device_is_said(earlier):
    far = on(earlier, "local", "ssh://pi")
    machine = far.environment.model_copy(update={"cpu": "Cortex-A53"})
    found = compare_with_baseline(far, far.model_copy(update={"devices": {"ssh://pi": machine}}))
    assert found.passed
    (line,) = found.differences
    assert line.startswith("ssh://pi: another processor: ")
    assert line.endswith(", Cortex-A53 in the baseline")


def test_other_instructions_are_said_unless_the_baseline_did_not_record_them(earlier):
    def on_processor(processor: Processor | None) -> ParityReport:
        environment = earlier.environment.model_copy(update={"processor": processor})
        return earlier.model_copy(update={"environment": environment})

    old = Processor(architecture="x86_64", avx2=True)
    now = on_processor(old.model_copy(update={"avx_vnni": True}))
    (line,) = compare_with_baseline(now, on_processor(old)).differences
    assert line.startswith("other instructions: x86_64: AVX2, AVX-VNNI; no AVX-512, ")
    assert compare_with_baseline(now, on_processor(None)).differences == ()


def test_an_artifact_that_does_not_run_any_more_is_named(earlier):
    found = compare_with_baseline(changed(earlier, "ort", "int8", images=0, map=None), earlier)
    (regression,) = found.regressions
    assert (regression.stage, regression.reason) == (
        "runtime",
        f"it ran on 0 images, and on {earlier.images} in the baseline",
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"detector": "another"}, "got a run of fake; expected one of another"),
        ({"data": "coco photos val"}, "expected data coco photos val, as in the baseline"),
        ({"images": 7}, "got a run with images 10; expected images 7"),
        ({"boxes": 7}, "labelled boxes 7"),
        ({"rows": ()}, "a baseline without artifacts"),
    ],
)
def test_a_baseline_of_something_else_is_refused(earlier, changes, words):
    with pytest.raises(DataError, match=words):
        compare_with_baseline(earlier, earlier.model_copy(update=changes))


def test_other_classes_and_no_artifact_in_common_are_refused(workbench, earlier):
    row = earlier.rows[0]
    renamed = tuple(one.model_copy(update={"label": f"{one.label}s"}) for one in row.classes)
    other = earlier.model_copy(update={"rows": (row.model_copy(update={"classes": renamed}),)})
    with pytest.raises(
        DataError, match="got the classes circle, square, cross; expected those of the baseline: circles"
    ):
        compare_with_baseline(earlier, other)
    elsewhere = earlier.model_copy(update={"rows": (row.model_copy(update={"device": "ssh://pi"}),)})
    with pytest.raises(DataError, match="some of what the baseline has: openvino fp32 on ssh://pi"):
        compare_with_baseline(earlier, elsewhere)


def test_what_else_differs_is_said_and_shares_under_other_rules_are_not_compared(earlier):
    int8 = earlier.budgets.int8.model_copy(update={"matched_iou": 0.5})
    environment = earlier.environment.model_copy(
        update={"packages": {**earlier.environment.packages, "onnxruntime": "0.1"}}
    )
    other = earlier.model_copy(
        update={
            "checkpoint_sha256": "1" * 64,
            "budgets": earlier.budgets.model_copy(update={"int8": int8}),
            "environment": environment,
        }
    )
    worse = changed(earlier, "ort", "int8", matched_fraction=0.0)
    found = compare_with_baseline(worse, other)
    assert found.passed
    changes = {(row.runtime, row.precision): row.matched_fraction_change for row in found.rows}
    assert changes["ort", "int8"] is None
    assert changes["ort", "fp32"] == 0
    checkpoint, limits, package = found.differences
    assert checkpoint.startswith("another checkpoint")
    assert limits == "other budgets: int8 (matched_iou: shares of matched detections are not compared)"
    assert package.endswith("0.1 in the baseline")
    reference = earlier.reference.model_copy(update={"map": 0.1})
    (said,) = compare_with_baseline(earlier, earlier.model_copy(update={"reference": reference})).differences
    assert "other images of the same name" in said


def test_a_report_of_an_earlier_version_can_be_a_baseline(earlier, tmp_path: Path):
    """Without what this version added: the fields of 0.1.0's first reports are read."""
    values = earlier.model_dump(mode="json")
    del values["baseline"], values["budgets"]["baseline"]
    for precision in ("fp32", "fp16", "int8", "int8_a16", "int8_dynamic"):
        del values["budgets"][precision]["classes"]
    for row in values["rows"]:
        for name in ("distributions", "differing_images", "differing_images_left_out"):
            del row[name]
        for one in row["classes"]:
            for name in ("boxes", "ap", "reference_ap", "unjudged"):
                del one[name]
    (tmp_path / "old.json").write_text(json.dumps(values))
    found = compare_with_baseline(earlier, ParityReport.load(tmp_path / "old.json"))
    assert found.passed
    assert found.rows[0].classes[0].ap_change is None
    assert found.differences == ("other budgets: fp32 (classes); int8 (classes)",)


def test_the_comparison_is_part_of_the_report_and_survives_its_file(earlier, tmp_path: Path):
    report = earlier.model_copy(update={"baseline": compare_with_baseline(earlier, earlier)})
    report.save(tmp_path / "parity.json")
    assert ParityReport.load(tmp_path / "parity.json") == report
    assert earlier.baseline is None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[:-20], "the document: Invalid JSON: EOF"),
        (lambda text: text.replace("{", '{"extra": 1, ', 1), "extra: Extra inputs are not permitted"),
    ],
)
def test_a_report_that_cannot_be_read_says_where_and_why(
    earlier: ParityReport, tmp_path: Path, damage, said: str
):
    path = tmp_path / "old.json"
    earlier.save(path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(DataError, match=re.escape(said)):
        ParityReport.load(path)
