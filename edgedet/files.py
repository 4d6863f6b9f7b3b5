"""Files that are either whole or not there, and paths that stay in their folder."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgedet.errors import BundleError, UsageError
from edgedet.text import encoded

# Of a temporary name: a user's own may be as long as the system allows.
_MOST_LETTERS = 40

_STREAMS = ("pipe", "character device")
_WRITABLE = ("", "regular file", *_STREAMS)


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file through a temporary one beside it and one rename.

    Text is written as UTF-8; what that cannot hold, as bytes of file names, is written out.
    Links are followed and stay. What is there and no regular file, as a pipe or a device, is written to as it
    is.

    Raises:
        UsageError: It is a folder, a socket or a disk.
    """
    content = encoded(data) if isinstance(data, str) else data
    kind = _kind(path)
    if kind not in _WRITABLE:
        raise _no_file(path, kind)
    with _naming(path):
        if kind in _STREAMS:
            path.write_bytes(content)
            return
        target = _real(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(target)
        try:
            with _new_file(temporary) as handle, os.fdopen(handle, "wb", closefd=False) as file:
                file.write(content)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def check_writable(path: Path) -> None:
    """Refuse a file that `write_atomically` could not write, before the work that it is to hold.

    Folders above it need not exist. Found out by making a file and removing it, because permissions say
    little of read-only and virtual file systems.

    Raises:
        UsageError: It is a folder, a socket or a disk, or no file can be made there.
    """
    kind = _kind(path)
    if kind not in _WRITABLE:
        raise _no_file(path, kind)
    if kind not in _STREAMS:
        _check_room(path, _real(path).parent)
    elif not os.access(path, os.W_OK):
        raise _no_file(path, f"{kind} without permission to write")


def check_folder_writable(path: Path) -> None:
    """Refuse a folder that cannot be made or into which no file can be written, before any work.

    Raises:
        UsageError: It is something else than a folder, or no file can be made there.
    """
    if _kind(path) not in ("", "folder"):
        raise UsageError(
            f"cannot write into {path}",
            got=f"a {_kind(path)}",
            expected="a folder, or a path that does not exist yet",
            fix="name a folder",
        )
    _check_room(path, _real(path))


def inside(root: Path, relative: str) -> Path:
    """The path `root / relative`, which must lie in `root` after links are followed.

    Raises:
        BundleError: It does not, or there can be no such path.
    """
    fix = "get the bundle from where it was exported; do not edit its manifest"
    try:
        path = (root / relative).resolve()
        path.exists()
    except PermissionError:
        raise
    except (OSError, RuntimeError, ValueError) as exc:  # a null character, a circle of links, a long name
        raise BundleError(
            f"{root} names a file that cannot be there",
            got=repr(relative[:100]),
            expected="a path that the file system can hold",
            fix=fix,
        ) from exc
    if not path.is_relative_to(root.resolve()):
        raise BundleError(
            f"{root} names a file outside itself",
            got=relative,
            expected="a path that stays in the folder",
            fix=fix,
        )
    return path


@contextmanager
def staged_directory(path: Path, *, overwrite: bool, marker: str) -> Iterator[Path]:
    """A temporary folder that becomes `path` by one rename when the block ends well, and goes otherwise.

    Args:
        path: The folder to make; a link is followed and stays.
        overwrite: Replace an existing folder, which must hold a file named `marker` or be empty.
        marker: The file that tells a folder of this kind from a user's own.

    Raises:
        UsageError: The folder exists and may not be replaced, or no folder can be made there.
    """
    check_may_become(path, overwrite=overwrite, marker=marker)
    place = _real(path)
    _check_room(path, place.parent)
    temporary = _beside(place)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        # Once more, for what may have come there since.
        check_may_become(path, overwrite=overwrite, marker=marker)
        with _naming(path):
            _put_in_place(temporary, place)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _real(path: Path) -> Path:
    """The path without links."""
    return Path(os.path.realpath(path))


def _beside(path: Path) -> Path:
    """A hidden name in the same folder that nothing has yet."""
    return path.with_name(f".{path.name[:_MOST_LETTERS]}.{secrets.token_hex(4)}")


@contextmanager
def _new_file(path: Path) -> Iterator[int]:
    """A descriptor of a new file, with the permissions that the user's mask leaves."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Make the system's errors name the path that the user gave, and no temporary one."""
    try:
        yield
    except OSError as exc:
        if exc.errno is not None:
            exc.filename, exc.filename2 = str(path), None
        raise


def _kind(path: Path) -> str:
    """What is there after links are followed, or ""."""
    with _naming(path):
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return ""
    for found, kind in (
        (stat.S_ISREG, "regular file"),
        (stat.S_ISDIR, "folder"),
        (stat.S_ISFIFO, "pipe"),
        (stat.S_ISCHR, "character device"),
        (stat.S_ISSOCK, "socket"),
    ):
        if found(mode):
            return kind
    return "disk"


def _no_file(path: Path, kind: str) -> UsageError:
    return UsageError(
        f"cannot write {path}",
        got=f"a {kind}",
        expected="a file that does not exist yet or may be replaced",
        fix="name a file",
    )


def _check_room(path: Path, folder: Path) -> None:
    """Refuse `path` where no file can be made in `folder`, or in the nearest folder above that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    trial = _beside(folder / "trial")
    try:
        with _new_file(trial):
            trial.unlink()
    except OSError as exc:
        raise UsageError(
            f"cannot write {path}",
            got=f"{folder}, in which no file can be made ({exc.strerror})",
            expected="a place that can be written",
            fix="choose another path, or mend the permissions of the folder",
        ) from exc


def check_may_become(path: Path, *, overwrite: bool, marker: str) -> None:
    """Refuse a folder that `staged_directory` could not replace, before the work that it is to hold.

    Raises:
        UsageError: It exists and may not be replaced.
    """
    if not path.exists():
        return
    replaceable = path.is_dir() and ((path / marker).is_file() or not any(path.iterdir()))
    if not (overwrite and replaceable):
        raise UsageError(
            f"cannot write {path}",
            got="a folder that exists" if replaceable else f"something that is not a {marker} folder",
            expected="a path that does not exist",
            fix="choose another --output" + (", or pass --overwrite" if replaceable else ""),
        )


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename; what was there is put back if that fails, and removed after it went well."""
    if not path.exists():
        temporary.replace(path)
        return
    old = _beside(path)
    path.replace(old)
    try:
        temporary.replace(path)
    except BaseException:
        old.replace(path)
        raise
    shutil.rmtree(old, ignore_errors=True)
