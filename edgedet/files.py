"""Files that are either whole or not there, and paths that stay in their folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgedet.errors import BundleError, UsageError


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file through a temporary one beside it and one rename; text is UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def inside(root: Path, relative: str) -> Path:
    """The path `root / relative`, which must lie in `root` after links are followed.

    Raises:
        BundleError: It does not.
    """
    path = (root / relative).resolve()
    if not path.is_relative_to(root.resolve()):
        raise BundleError(
            f"{root} names a file outside itself",
            got=relative,
            expected="a path that stays in the folder",
            fix="get the bundle from where it was exported; do not edit its manifest",
        )
    return path


@contextmanager
def staged_directory(path: Path, *, overwrite: bool, marker: str) -> Iterator[Path]:
    """A temporary folder that becomes `path` by one rename when the block ends well, and goes otherwise.

    Args:
        path: The folder to make.
        overwrite: Replace an existing folder, which must hold a file named `marker` or be empty.
        marker: The file that tells a folder of this kind from a user's own.

    Raises:
        UsageError: The folder exists and may not be replaced.
    """
    _check_may_become(path, overwrite=overwrite, marker=marker)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    temporary.chmod(0o755)
    try:
        yield temporary
        # Once more, for what may have come there since.
        _check_may_become(path, overwrite=overwrite, marker=marker)
        _put_in_place(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _check_may_become(path: Path, *, overwrite: bool, marker: str) -> None:
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
    old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
    path.replace(old)
    try:
        temporary.replace(path)
    except BaseException:
        old.replace(path)
        raise
    shutil.rmtree(old, ignore_errors=True)
