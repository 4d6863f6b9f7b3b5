"""`edgedet recommend` on real artifacts: what it says follows from figures that are measured here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command import Command, check_refusal

from edgedet.bench import turns as bench_turns
from edgedet.bundle import MANIFEST, open_bundle
from edgedet.data.synthetic import SyntheticDataset
from edgedet.evaluate import evaluate
from edgedet.pipeline import load
from edgedet.processor import read_processor
from edgedet.recommend import RecommendationReport, run_recommendation


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven blocks in less than a second: figures of speed are not judged here."""
    monkeypatch.setattr(bench_turns, "_TURN_S", 0.05)


@pytest.fixture
def two_precisions(bundle: Path, tmp_path: Path) -> Path:
    """The small bundle with its fp32 files listed as fp16 as well: another precision of known accuracy."""
    root = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    manifest = json.loads((root / MANIFEST).read_text())
    shipped = [a for a in manifest["artifacts"] if a["runtime"] in {"ort", "openvino"}]
    manifest["artifacts"] += [{**artifact, "precision": "fp16"} for artifact in shipped]
    (root / MANIFEST).write_text(json.dumps(manifest))
    return root


@pytest.fixture
def report(two_precisions: Path) -> RecommendationReport:
    return run_recommendation(two_precisions, SyntheticDataset("test", size=3), duration_s=0.7)


def test_every_precision_of_the_bundle_is_measured_and_evaluated_once(
    report: RecommendationReport, two_precisions: Path
) -> None:
    rows = report.recommendation.rows
    assert {(row.runtime, row.precision) for row in rows} == {
        (runtime, precision) for runtime in ("ort", "openvino") for precision in ("fp32", "fp16")
    }
    with load(two_precisions, "ort", "fp32") as pipeline:
        expected = evaluate(pipeline, SyntheticDataset("test", size=3)).map
    assert all(row.map == pytest.approx(expected, abs=1e-3) for row in rows)
    assert report.images == 3
    assert all(row.ratio_interval for row in rows if row.precision == "fp16")
    assert {advice.runtime for advice in report.recommendation.advice} == {"ort", "openvino"}


def test_what_is_printed_is_what_is_written_and_the_page_needs_no_network(
    edgedet: Command, two_precisions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = SyntheticDataset("test", size=3)
    monkeypatch.setattr("edgedet.cli.recommend.open_dataset", lambda *_: images)
    page, values = tmp_path / "page.html", tmp_path / "values.json"
    result = edgedet(
        "recommend", two_precisions, "--data", "builtin", "--split", "test", "--runtimes", "ort",
        "--duration", "0.1", "--report", page, "--json", values,
    )  # fmt: skip
    assert result.code == 0, result.stderr
    found = json.loads(values.read_text())["recommendation"]
    assert found["sentence"] in result.stdout
    assert found["advice"][0]["sentence"] in result.stdout
    assert RecommendationReport.load(values).recommendation.sentence == found["sentence"]
    html = page.read_text("utf-8")
    assert read_processor().description in result.stdout
    assert read_processor().summary in html
    assert "data:image/png;base64," in html
    assert "http://" not in html
    assert "https://" not in html
    assert "<script" not in html


@pytest.mark.parametrize("text", ["1", "100%", "-1%", "some", "1%%"])
def test_a_drop_that_cannot_be_meant_is_refused(edgedet: Command, bundle: Path, text: str) -> None:
    result = edgedet("recommend", bundle, "--data", "builtin", f"--max-drop={text}")
    check_refusal(result, 2, "--max-drop", text)


def test_images_without_boxes_are_refused(edgedet: Command, bundle: Path, tmp_path: Path) -> None:
    import cv2

    picture = SyntheticDataset("test", size=1)[0].image_bgr
    (tmp_path / "photo.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    assert open_bundle(bundle)
    result = edgedet("recommend", bundle, "--data", tmp_path, "--runtimes", "ort", "--duration", "0.1")
    check_refusal(result, 2, "boxes")
