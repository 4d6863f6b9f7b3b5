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
        return tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as exc:
        # Beside broken syntax and encoding, values: numbers of thousands of digits, NUL in a path.
        is_read = not isinstance(exc, OSError)
        raise ConfigError(
            f"{path} is no TOML" if is_read else f"cannot read {path}",
            got=str(exc) if is_read else getattr(exc, "strerror", "") or str(exc),
            expected="TOML 1.0 in UTF-8" if is_read else "a TOML file",
            fix="correct that line" if is_read else fix,
        ) from exc
    except RecursionError as exc:
        raise ConfigError(
            f"{path} is no TOML",
            got="brackets inside each other, hundreds deep",
            expected="TOML 1.0 in UTF-8",
            fix="write the values out",
        ) from exc


def toml_string(text: str) -> str:
    """A text as a TOML string."""
    # JSON's escapes are TOML's, but for pairs of surrogates; DEL has to be escaped in TOML alone.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
