"""`edgedet inspect` finds whatever was changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import Command, check_refusal

from edgedet.bundle import MANIFEST, FileEntry


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
