"""`edgedet parity` on real artifacts: baseline, summary, and plots of other commands' reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Command, check_refusal

from edgedet.cli.output import open_output
from edgedet.cli.parity import show_notes
from edgedet.data.synthetic import SyntheticDataset
from edgedet.parity import ParityReport, compare_with_baseline
from edgedet.selection import Skipped


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    images = SyntheticDataset("test", size=3)
    monkeypatch.setattr("edgedet.cli.parity.open_dataset", lambda *_: images)


@pytest.fixture
def saved(edgedet: Command, bundle: Path, tmp_path: Path) -> Path:
    path = tmp_path / "baseline.json"
    result = edgedet("parity", bundle, "--data", "builtin", "--json", path)
    assert result.code == 0, result.stderr
    return path


def lowered(path: Path, **changes: float) -> None:
    """Make the run of a file better than any to come."""
    values = json.loads(path.read_text())
    values["rows"] = [{**row, **changes} for row in values["rows"]]
    path.write_text(json.dumps(values))


def test_the_same_bundle_is_no_worse_than_its_baseline(
    edgedet: Command, bundle: Path, saved: Path, tmp_path: Path
) -> None:
    file = tmp_path / "values.json"
    result = edgedet("parity", bundle, "--data", "builtin", "--baseline", saved, "--json", file)
    assert result.code == 0, result.stdout + result.stderr
    assert "against the baseline:" in result.stdout
    found = ParityReport.load(file).baseline
    assert found is not None
    assert (found.passed, found.differences) == (True, ())
    assert json.loads(saved.read_text())["baseline"] is None


def test_a_fall_below_the_baseline_ends_with_1_and_is_in_every_output(
    edgedet: Command, bundle: Path, saved: Path, tmp_path: Path
) -> None:
    lowered(saved, output_snr_db=150.0)
    page, summary, file = tmp_path / "page.html", tmp_path / "summary.md", tmp_path / "values.json"
    result = edgedet(
        "parity", bundle, "--data", "builtin", "--baseline", saved,
        "--html", page, "--markdown", summary, "--json", file,
    )  # fmt: skip
    assert result.code == 1
    assert "edgedet: worse than in the baseline by more than is allowed" in result.stderr
    reason = "150.0 in the baseline; the limit is a fall of 3 dB"
    assert f"ort fp32 at raw outputs: {ParityReport.load(file).rows[1].output_snr_db:.1f} dB" in result.stdout
    for text in (result.stdout, page.read_text("utf-8"), summary.read_text("utf-8")):
        assert reason in text
    assert summary.read_text("utf-8").startswith("### Failed: ")
    assert not ParityReport.load(file).baseline.passed
    loose = tmp_path / "loose.toml"
    loose.write_text("[baseline]\nmax_snr_drop_db = 100\n")
    result = edgedet("parity", bundle, "--data", "builtin", "--baseline", saved, "--budgets", loose)
    assert result.code == 0, result.stdout + result.stderr


def test_a_baseline_of_several_devices_can_be_held_against_one_of_them(
    edgedet: Command, bundle: Path, saved: Path
) -> None:
    values = json.loads(saved.read_text())
    values["rows"] += [{**row, "device": "ssh://pi"} for row in values["rows"]]
    saved.write_text(json.dumps(values))
    result = edgedet("parity", bundle, "--data", "builtin", "--baseline", saved, "--device", "local")
    assert result.code == 0, result.stdout + result.stderr
    assert "note: what the baseline has of ssh://pi was not asked for" in result.stdout


def test_where_there_are_several_devices_changes_and_gaps_name_theirs(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = ParityReport.load(saved)
    far = [row.model_copy(update={"device": "ssh://pi"}) for row in report.rows]
    skipped = Skipped(runtime="tflite", precision="fp32", reason="ssh://pi: it is not installed")
    report = report.model_copy(
        update={
            "rows": (*report.rows, *far),
            "devices": {"ssh://pi": report.environment},
            "skipped": (skipped,),
        }
    )
    report = report.model_copy(update={"baseline": compare_with_baseline(report, report)})
    with open_output(None) as output:
        show_notes(report, output)
    text = capsys.readouterr().out
    assert "tflite fp32 on ssh://pi was not compared: it is not installed" in text
    table = text.split("against the baseline:")[1].split("note:")[0].split("\n")
    cells = [tuple(line.split()[:3]) for line in table if line]
    assert cells[0] == ("device", "runtime", "precision")
    assert cells[1:] == [(row.device, row.runtime, row.precision) for row in report.rows]


def test_a_baseline_of_another_detector_is_refused_before_any_work(
    edgedet: Command, bundle: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = json.loads(saved.read_text()) | {"detector": "another"}
    saved.write_text(json.dumps(values))
    monkeypatch.setattr("edgedet.cli.parity.run_parity", lambda *_, **__: pytest.fail("work was done"))
    result = edgedet("parity", bundle, "--data", "builtin", "--baseline", saved)
    check_refusal(result, 2, "got a run of small", "one of another")
    saved.write_text("{}")
    result = edgedet("parity", bundle, "--data", "builtin", "--baseline", saved)
    check_refusal(result, 2, "what `edgedet parity --json` wrote")


def test_a_baseline_of_other_images_is_refused_as_soon_as_that_is_known(
    edgedet: Command, bundle: Path, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = json.loads(saved.read_text())
    saved.write_text(json.dumps(values | {"images": values["images"] - 1}))
    report = tmp_path / "report.json"
    result = edgedet("parity", bundle, "--data", "builtin", "--baseline", saved, "--json", report)
    check_refusal(result, 2, f"got a run with images {values['images']}", "--limit")
    assert len(ParityReport.load(report).rows) == len(values["rows"]), "what was measured is kept"
    monkeypatch.setattr("edgedet.cli.parity.run_parity", lambda *_, **__: pytest.fail("work was done"))
    for change in ({"images": values["images"] + 1}, {"data": "coco elsewhere"}):
        saved.write_text(json.dumps(values | change))
        result = edgedet("parity", bundle, "--data", "builtin", "--baseline", saved)
        check_refusal(result, 2, "as in the baseline")


def test_an_artifact_whose_runtime_is_missing_is_no_success(
    edgedet: Command, bundle: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gaps = (
        Skipped(runtime="tensorrt", precision="int8", reason="not built where it was exported"),
        Skipped(runtime="openvino", precision="int8", reason="not installed", missing=True),
    )
    report = ParityReport.load(saved)
    for skipped, code in ((gaps[:1], 0), (gaps, 3)):
        found = report.model_copy(update={"skipped": skipped})
        monkeypatch.setattr("edgedet.cli.parity.run_parity", lambda *_, found=found, **__: found)
        result = edgedet("parity", bundle, "--data", "builtin")
        assert result.code == code
        assert ("edgedet: not compared: openvino int8; " in result.stderr) == bool(code)


def test_a_budget_for_an_unknown_class_is_refused(edgedet: Command, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text("[fp32.classes.Platelets]\nmax_ap_drop_points = 1\n")
    result = edgedet("parity", bundle, "--data", "builtin", "--budgets", path)
    check_refusal(result, 2, "got Platelets", "circle, ")


def test_the_summary_alone_is_on_standard_output(edgedet: Command, bundle: Path) -> None:
    result = edgedet("parity", bundle, "--data", "builtin", "--runtimes", "ort", "--markdown", "-")
    assert result.code == 0, result.stderr
    assert result.stdout.startswith("### Passed: ")
    assert "| ort fp32 |" in result.stdout
    assert "SNR dB" not in result.stdout, "the table for terminals is not there"


def test_standard_output_holds_one_of_summary_and_values(edgedet: Command, bundle: Path) -> None:
    result = edgedet("parity", bundle, "--data", "builtin", "--markdown", "-", "--json", "-")
    check_refusal(result, 2, "--json - and --markdown -")


def test_other_reports_are_plotted_in_the_page_and_nowhere_else(
    edgedet: Command, bundle: Path, tmp_path: Path
) -> None:
    layers = [
        {
            "layer": f"conv_{i}",
            "kind": "weighted",
            "operators": 1,
            "macs_share": 0.1,
            "snr_db": {"a": 30.0 + i},
        }
        for i in range(9)
    ]
    sensitivity = tmp_path / "sensitivity.json"
    sensitivity.write_text(json.dumps({"encoding": "onnxruntime", "images": 8, "layers": layers}))
    page = tmp_path / "page.html"
    result = edgedet(
        "parity",
        bundle,
        "--data",
        "builtin",
        "--runtimes",
        "ort",
        "--html",
        page,
        "--sensitivity",
        sensitivity,
    )
    assert result.code == 0, result.stderr
    text = page.read_text("utf-8")
    assert "What quantizing each layer alone costs" in text
    assert "<p>conv_0: 30.0 dB</p>" in text
    result = edgedet("parity", bundle, "--data", "builtin", "--sensitivity", sensitivity)
    check_refusal(result, 2, "got --sensitivity", "--html FILE")
    sensitivity.write_text("{}")
    result = edgedet("parity", bundle, "--data", "builtin", "--html", page, "--sensitivity", sensitivity)
    check_refusal(result, 2, "what `edgedet sensitivity --json` wrote")


def test_a_recommendation_for_another_detector_is_refused(
    edgedet: Command, bundle: Path, tmp_path: Path
) -> None:
    file = tmp_path / "recommendation.json"
    result = edgedet(
        "recommend", bundle, "--data", "builtin", "--split", "test", "--runtimes", "ort",
        "--duration", "0.1", "--json", file,
    )  # fmt: skip
    assert result.code == 0, result.stderr
    page = tmp_path / "page.html"
    options = ("--runtimes", "ort", "--html", page, "--recommendation", file)
    result = edgedet("parity", bundle, "--data", "builtin", *options)
    assert result.code == 0, result.stderr
    assert "Which artifact to ship" in page.read_text("utf-8")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"detector": "another"}))
    result = edgedet("parity", bundle, "--data", "builtin", *options)
    check_refusal(result, 2, "a recommendation for another")
