from __future__ import annotations

from pathlib import Path

import pytest

from edgedet.errors import BundleError, UsageError
from edgedet.files import inside, staged_directory, write_atomically


def test_a_folder_that_appears_while_another_is_staged_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "out"

    def export_while_the_user_writes() -> None:
        with staged_directory(target, overwrite=False, marker="m.json") as folder:
            (folder / "m.json").write_text("new")
            target.mkdir()
            (target / "thesis.txt").write_text("mine")

    with pytest.raises(UsageError, match="cannot write"):
        export_while_the_user_writes()
    assert (target / "thesis.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_was_there_comes_back_when_the_last_rename_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "m.json").write_text("old")
    rename = Path.replace

    def fail_for_the_new_one(self: Path, other: Path) -> Path:
        if other == target and (self / "m.json").read_text() == "new":
            raise OSError("no space left on device")
        return rename(self, other)

    monkeypatch.setattr(Path, "replace", fail_for_the_new_one)

    def export() -> None:
        with staged_directory(target, overwrite=True, marker="m.json") as folder:
            (folder / "m.json").write_text("new")

    with pytest.raises(OSError, match="no space"):
        export()
    assert (target / "m.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_error_while_staging_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with staged_directory(tmp_path / "out", overwrite=False, marker="m.json") as folder:
            (folder / "half.bin").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "before")

    def fail(self: Path, other: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "after")
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_path_or_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "bundle"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    for path in ("../secret", "/etc/passwd", "link/secret"):
        with pytest.raises(BundleError, match="outside itself"):
            inside(root, path)
    assert inside(root, "fp32/model.onnx") == (root / "fp32" / "model.onnx").resolve()
