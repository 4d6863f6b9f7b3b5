"""What the committed detectors reach after export, on their test images, through every CPU runtime."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedet.bundle import MANIFEST, Bundle, FileEntry
from edgedet.cli import main
from edgedet.data import Dataset, open_dataset
from edgedet.parity import ParityReport, ParityRow, run_parity

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("bccd_bundle")]

FLOORS = tomllib.loads((Path(__file__).parents[1] / "accuracy_floors.toml").read_text("utf-8"))
IMAGES = {"bccd_ssdlite320_mobilenetv2": 72, "shapes_ssdlite256_mobilenetv2": 100}


def exported(model: str, request: pytest.FixtureRequest) -> tuple[Bundle, Dataset]:
    """A model's bundle, made once for all tests of a session, and its test images."""
    if model.startswith("shapes"):
        return request.getfixturevalue("full_bundle"), open_dataset("builtin", "test")
    root = request.getfixturevalue("test_data") / "data" / "bccd"
    return request.getfixturevalue("bccd_bundle"), open_dataset(root, "test")


@pytest.fixture(scope="module", params=list(FLOORS))
def report(request: pytest.FixtureRequest) -> ParityReport:
    bundle, dataset = exported(request.param, request)
    return run_parity(bundle, dataset)


def rows(report: ParityReport, precision: str) -> dict[str, ParityRow]:
    return {row.runtime: row for row in report.rows if row.precision == precision}


def test_every_artifact_is_above_its_floor(report: ParityReport) -> None:
    assert report.images == IMAGES[report.detector]
    floors = {(r, p): floor for r, table in FLOORS[report.detector].items() for p, floor in table.items()}
    found = {(row.runtime, row.precision): row for row in report.rows}
    assert found.keys() == floors.keys()
    below = {
        key: (row.map, row.map50)
        for key, row in found.items()
        if not (row.map >= floors[key]["map"] and row.map50 >= floors[key]["map50"])
    }
    assert not below


def test_int8_keeps_the_accuracy_of_float_and_runtimes_agree(report: ParityReport) -> None:
    values = [row.map for row in rows(report, "int8").values()]
    assert min(values) >= 0.985 * report.reference.map
    assert max(values) - min(values) <= 0.005


def test_float_artifacts_stay_in_their_parity_budget_on_every_image(report: ParityReport) -> None:
    found = rows(report, "fp32")
    assert found.keys() == {"openvino", "ort", "tflite"}
    assert {name: row.reasons for name, row in found.items() if not row.passed} == {}


def with_one_changed_weight(bundle: Bundle, folder: Path) -> None:
    """Copy a bundle, change one weight of a box predictor in its ONNX file, and the hash with it."""
    import onnx
    from onnx import numpy_helper

    shutil.copytree(bundle.root, folder)
    artifact = bundle.artifact("ort", "fp32")
    path = folder / artifact.files[0].path
    model = onnx.load(path)
    (weight,) = (w for w in model.graph.initializer if w.name.endswith("box_predictors.0.pointwise.weight"))
    values = numpy_helper.to_array(weight).copy()
    values[0, 0] += np.float32(0.5)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)
    changed = artifact.model_copy(update={"files": (FileEntry.of(folder, path),)})
    artifacts = tuple(changed if a is artifact else a for a in bundle.manifest.artifacts)
    manifest = bundle.manifest.model_copy(update={"artifacts": artifacts})
    (folder / MANIFEST).write_text(manifest.model_dump_json())


def test_parity_ends_with_1_where_one_weight_moves_a_box(
    bccd_bundle: Bundle, test_data: Path, tmp_path: Path
) -> None:
    def parity(bundle: Path) -> tuple[int, dict[str, Any]]:
        options = ["--split", "test", "--runtimes", "ort", "--precisions", "fp32", "--limit", "12"]
        data, document = test_data / "data" / "bccd", tmp_path / "parity.json"
        code = main(["parity", str(bundle), "--data", str(data), *options, "--json", str(document)])
        (row,) = json.loads(document.read_text())["rows"]
        return code, row

    code, row = parity(bccd_bundle.root)
    assert (code, row["passed"]) == (0, True)
    with_one_changed_weight(bccd_bundle, tmp_path / "changed")
    code, row = parity(tmp_path / "changed")
    assert (code, row["passed"]) == (1, False)
    assert row["max_box_px"] > 0.02
    assert any("a box differs by" in reason for reason in row["reasons"])
