"""Where the agent keeps what it gets: a folder that nobody else can write into."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from edgedet.devices import agent


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for all, on a machine where the user has no home."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setenv("HOME", "/")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def parts(temporary: Path) -> list[Path]:
    user = temporary / f"user-{os.getuid()}"
    return [user, user / "edgedet", user / "edgedet" / "device"]


def test_folders_in_one_for_all_are_closed_to_others_whatever_the_umask(temporary: Path) -> None:
    before = os.umask(0)
    try:
        assert agent._base() == parts(temporary)[-1]
    finally:
        os.umask(before)
    assert [oct(part.stat().st_mode & 0o777) for part in parts(temporary)] == ["0o700"] * 3


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_can_write_into_is_refused(temporary: Path, number: int, mode: int) -> None:
    agent._base()
    parts(temporary)[number].chmod(mode)
    with pytest.raises(PermissionError, match="not a folder of this user's alone") as caught:
        agent._base()
    assert caught.value.filename == str(parts(temporary)[number])


@pytest.mark.parametrize("number", range(3))
def test_a_link_is_refused(temporary: Path, tmp_path: Path, number: int) -> None:
    link = parts(temporary)[number]
    link.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    (tmp_path / "elsewhere").mkdir()
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="not a folder of this user's alone"):
        agent._base()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_of_another_user_is_refused(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = os.getuid() + 1
    (temporary / f"user-{other}").mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: other)
    with pytest.raises(PermissionError, match="not a folder of this user's alone"):
        agent._base()


def test_folders_in_the_users_own_cache_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wide = tmp_path / "cache" / "edgedet"
    wide.mkdir(parents=True)
    wide.chmod(0o775)  # as another program made it with a mask of 002
    assert agent._base() == wide / "device"
    assert oct(wide.stat().st_mode & 0o777) == "0o700"
