from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgedet.errors import BundleError, UsageError
from edgedet.files import (
    check_folder_writable,
    check_writable,
    inside,
    staged_directory,
    write_atomically,
)

LONG_NAME = "n" * 250 + ".html"


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


@pytest.mark.parametrize("relative", ["fp32/model\0.onnx", "n" * 300])
def test_a_path_that_no_file_can_have_is_refused(tmp_path: Path, relative: str) -> None:
    with pytest.raises(BundleError, match="cannot be there"):
        inside(tmp_path, relative)


def test_a_circle_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(BundleError):
        inside(tmp_path, "a")


@pytest.fixture(params=[0o002, 0o022, 0o077])
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    """The mask of permissions that a user has set."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_file_and_a_folder_get_the_permissions_that_the_mask_leaves(tmp_path: Path, mask: int) -> None:
    write_atomically(tmp_path / "a.json", "{}")
    with staged_directory(tmp_path / "out", overwrite=False, marker="m.json"):
        pass
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o666 & ~mask
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.json").write_text("old")
    (tmp_path / "link.json").symlink_to(tmp_path / "there" / "a.json")
    write_atomically(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "there" / "a.json").read_text() == "new"
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["a.json"]


def test_a_pipe_is_written_through(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()), daemon=True)
    reader.start()
    check_writable(tmp_path / "pipe")
    write_atomically(tmp_path / "pipe", "whole")
    reader.join(10)
    assert read == ["whole"]
    assert (tmp_path / "pipe").is_fifo()


def test_a_device_is_written_through() -> None:
    screen, terminal = os.openpty()  # a device beside which nobody can put a file, whatever goes wrong here
    device = Path(os.ttyname(terminal))
    check_writable(device)
    write_atomically(device, "shown")
    assert os.read(screen, 100) == b"shown"
    assert device.is_char_device()
    os.close(screen)
    os.close(terminal)


def test_a_name_as_long_as_the_system_allows_is_written(tmp_path: Path) -> None:
    write_atomically(tmp_path / LONG_NAME, "text")
    assert (tmp_path / LONG_NAME).read_text() == "text"


def test_an_error_of_the_system_names_the_path_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, other: Path) -> Path:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(tmp_path / "a.json", "text")
    assert caught.value.filename == str(tmp_path / "a.json")


def test_what_can_be_written_passes_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("old")
    for name in ("old.json", "new.json", "not/there/yet.json", LONG_NAME):
        check_writable(tmp_path / name)
    check_folder_writable(tmp_path)
    check_folder_writable(tmp_path / "not" / "there")
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]
    assert (tmp_path / "old.json").read_text() == "old"


@pytest.mark.parametrize("path", ["/proc/r.html", "file/r.html"])
def test_a_place_where_no_file_can_be_made_is_refused_by_the_users_path(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for check in (check_writable, check_folder_writable):
        with pytest.raises(UsageError, match=rf"^cannot write {path}; got .*no file can be made") as caught:
            check(Path(path))
        assert "trial" not in str(caught.value)
    with (
        pytest.raises(UsageError, match=f"cannot write {path}"),
        staged_directory(Path(path), overwrite=False, marker="m.json"),
    ):
        pass


def test_a_folder_and_a_socket_are_no_files_and_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    for check in (check_writable, lambda path: write_atomically(path, "")):
        with pytest.raises(UsageError, match="got a folder"):
            check(tmp_path)
        with pytest.raises(UsageError, match="got a socket"):
            check(tmp_path / "socket")
    with pytest.raises(UsageError, match="got a regular file"):
        check_folder_writable(tmp_path / "file")
    server.close()


@pytest.mark.parametrize("old", [True, False])
def test_a_link_to_a_folder_stays_and_the_folder_is_replaced(tmp_path: Path, old: bool) -> None:
    (tmp_path / "there").mkdir()
    if old:
        (tmp_path / "there" / "m.json").write_text("old")
    (tmp_path / "link").symlink_to("there")
    with staged_directory(tmp_path / "link", overwrite=True, marker="m.json") as folder:
        (folder / "m.json").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "m.json").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "there"]


def test_a_folder_that_cannot_be_moved_away_leaves_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    rename = Path.replace

    def keep_the_old_one(self: Path, other: Path) -> Path:
        if self == target:
            raise OSError(16, "Device or resource busy", str(self), None, str(other))
        return rename(self, other)

    monkeypatch.setattr(Path, "replace", keep_the_old_one)
    with (
        pytest.raises(OSError, match="busy") as caught,
        staged_directory(target, overwrite=True, marker="m.json"),
    ):
        pass
    assert (caught.value.filename, caught.value.filename2) == (str(target), None)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
