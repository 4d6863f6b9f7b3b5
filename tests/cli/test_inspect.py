"""`edgedet inspect` finds whatever was changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import Command, check_refusal

from edgedet.bundle import MANIFEST, Bundle, FileEntry


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle with the files that INT8 is made with, to be damaged."""
    root = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    manifest = json.loads((root / MANIFEST).read_text())
    for name in ("calibration.json", "recipe.toml"):
        (root / name).write_text("made with this")
        manifest["files"].append(FileEntry.of(root, root / name).model_dump(mode="json"))
    (root / MANIFEST).write_text(json.dumps(manifest))
    return root


def inspected(edgedet: Command, root: Path, tmp_path: Path) -> tuple[Any, dict[str, Any]]:
    result = edgedet("inspect", root, "--json", tmp_path / "values.json")
    return result, json.loads((tmp_path / "values.json").read_text())


def test_a_whole_bundle_lists_what_it_was_made_with(edgedet: Command, copy: Path, tmp_path: Path) -> None:
    result, values = inspected(edgedet, copy, tmp_path)
    assert result.code == 0
    assert [(file["path"], file["whole"]) for file in values["files"]] == [
        ("calibration.json", True),
        ("recipe.toml", True),
    ]
    assert "recipe.toml" in result.stdout


@pytest.mark.parametrize("name", ["calibration.json", "recipe.toml"])
def test_a_changed_file_beside_the_artifacts_is_found(
    edgedet: Command, copy: Path, tmp_path: Path, name: str
) -> None:
    (copy / name).write_text("made with that")
    result, values = inspected(edgedet, copy, tmp_path)
    check_refusal(result, 2, name, "sha256")
    assert [file["path"] for file in values["files"] if not file["whole"]] == [name]
    assert all(artifact["whole"] for artifact in values["artifacts"])


def test_artifacts_that_share_a_path_are_judged_one_by_one(
    edgedet: Command, copy: Path, tmp_path: Path
) -> None:
    manifest = json.loads((copy / MANIFEST).read_text())
    first = manifest["artifacts"][0]
    other = {**first, "runtime": "", "target": "other", "files": [{**first["files"][0], "sha256": "0" * 64}]}
    manifest["artifacts"].insert(0, other)
    (copy / MANIFEST).write_text(json.dumps(manifest))
    result, values = inspected(edgedet, copy, tmp_path)
    check_refusal(result, 2, "sha256")
    assert [artifact["whole"] for artifact in values["artifacts"]] == [False, True, True, True]
    assert result.stdout.splitlines()[0].endswith(": 4 artifacts")


def test_the_layers_whose_sums_can_overflow_are_named(
    edgedet: Command, int8_bundle: Bundle, tmp_path: Path
) -> None:
    result, values = inspected(edgedet, int8_bundle.root, tmp_path)
    assert result.code == 0
    lines = result.stdout.splitlines()
    assert [line for line in lines if "1 of 1 layers can overflow" in line and "int8/model.onnx" in line]
    (named,) = (line for line in lines if line.startswith("the layer"))
    assert named.split() == ["the", "layer", "1", "129"]
    found = {artifact["files"][0]["path"]: artifact["saturation"] for artifact in values["artifacts"]}
    assert found.pop("int8/model.onnx") == {
        "exact": False,
        "layers": 1,
        "overflows": [{"layer": "the layer", "channels": 1, "largest": 129}],
        "unread": [],
    }
    assert set(found.values()) == {None}


def test_an_artifact_whose_sums_cannot_overflow_is_exact(
    edgedet: Command, int8_bundle: Bundle, tmp_path: Path, int8_layer: Callable[[Path, int, int], None]
) -> None:
    path = int8_bundle.root / "int8" / "model.onnx"
    int8_layer(path, 100, 28)
    manifest = json.loads((int8_bundle.root / MANIFEST).read_text())
    manifest["artifacts"][-1]["files"] = [FileEntry.of(int8_bundle.root, path).model_dump(mode="json")]
    (int8_bundle.root / MANIFEST).write_text(json.dumps(manifest))
    result, values = inspected(edgedet, int8_bundle.root, tmp_path)
    assert result.stdout.count("exact on every x86") == 1
    assert values["artifacts"][-1]["saturation"]["exact"] is True
    assert "the layer" not in result.stdout


def test_nothing_is_proved_of_a_changed_file(edgedet: Command, int8_bundle: Bundle, tmp_path: Path) -> None:
    with (int8_bundle.root / "int8" / "model.onnx").open("ab") as file:
        file.write(b"more")
    result, values = inspected(edgedet, int8_bundle.root, tmp_path)
    check_refusal(result, 2, "sha256")
    assert values["artifacts"][-1]["saturation"] is None
    assert "every x86" not in result.stdout


def test_layers_of_a_file_that_edgedet_did_not_write_are_named(
    edgedet: Command, tmp_path: Path, int8_layer: Callable[[Path, int, int], None]
) -> None:
    path = tmp_path / "foreign" / "model.onnx"
    int8_layer(path, 100, 29)
    result = edgedet("inspect", path)
    check_refusal(result, 2, "without a detector spec inside")
    assert "model.onnx: 1 of 1 layers can overflow" in result.stdout
