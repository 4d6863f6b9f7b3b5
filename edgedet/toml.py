"""TOML files that people write."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from edgedet.errors import ConfigError


def read_toml(path: Path, fix: str) -> dict[str, Any]:
    """The document in a file.

    Args:
        path: The file.
        fix: What to do where it cannot be read.

    Raises:
        ConfigError: It cannot be read or is no TOML.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as exc:  # a ValueError where the path holds NUL
        got = getattr(exc, "strerror", "") or str(exc)
        raise ConfigError(f"cannot read {path}", got=got, expected="a TOML file", fix=fix) from exc
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as exc:  # syntax, encoding, a number of thousands of digits; depth
        is_deep = isinstance(exc, RecursionError)
        raise ConfigError(
            f"{path} is no TOML",
            got="brackets inside each other, hundreds deep" if is_deep else str(exc),
            expected="TOML 1.0 in UTF-8",
            fix="write the values out" if is_deep else "correct that line",
        ) from exc


def toml_string(text: str) -> str:
    """A text as a TOML string."""
    # JSON's escapes are TOML's, but for pairs of surrogates; DEL has to be escaped in TOML alone.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
