"""Text files of data sets: UTF-8 with or without a byte order mark, or UTF-16 with one."""

from __future__ import annotations

from pathlib import Path

from edgedet.errors import DataError


def decode(data: bytes) -> str:
    """The text of a file's bytes.

    Raises:
        UnicodeDecodeError: It is in another encoding.
    """
    return data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty, without the space around them.

    Raises:
        DataError: It cannot be read.
    """
    try:
        lines = decode(path.read_bytes()).splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise DataError(
            f"cannot read {path}",
            got=f"{type(exc).__name__}: {exc}",
            expected="text in UTF-8",
            fix="save it as UTF-8",
        ) from exc
    return [line.strip() for line in lines if line.strip()]
