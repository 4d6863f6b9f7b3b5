"""The two things that a YOLO yaml says: the names of the classes and the folders of the splits.

A yaml library is no dependency of the base install, and these files use a corner of the language: top-level
keys with a plain or quoted value, and `names` as a block list, an indented mapping of indices, or a list or
mapping in brackets. What is written in another way is refused, never guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgedet.errors import DataError

_KEY = re.compile(r"^([A-Za-z_][\w-]*)\s*:(?:\s+(.*))?$")
_LIST_ITEM = re.compile(r"^\s*-\s+(.+)$")
_MAP_ITEM = re.compile(r"^\s+[\"']?(\d+)[\"']?\s*:\s+(.+)$")
_QUOTED = re.compile(r"""^("(?:[^"\\]|\\.)*"|'(?:[^']|'')*')\s*(?:#.*)?$""")
_BRACKETS = re.compile(r"^(?:\[(.*)\]|\{(.*)\})\s*(?:#.*)?$")
# An index where there is one, then a value: quoted, or plain, which may hold quotes but not start with one.
_IN_BRACKETS = re.compile(
    r"""\s*(?:["']?(\d+)["']?\s*:\s+)?"""
    r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^,"'\[\]{}\s][^,\[\]{}]*)\s*(?:,\s*|$)"""
)

_SPLIT_KEYS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Description:
    """Names of the classes by index, and folders of splits relative to the root."""

    names: tuple[str, ...]
    splits: dict[str, str]


def read_description(path: Path) -> Description:
    """Read a YOLO yaml.

    Raises:
        DataError: It cannot be read, or its names are not written in a way that is understood.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise _refused(path, f"{type(exc).__name__}: {exc}") from exc
    blocks = _blocks(lines)
    head, body = blocks.get("names", ("", []))
    splits = {key: _scalar(blocks[key][0]) for key in _SPLIT_KEYS if key in blocks and not blocks[key][1]}
    return Description(_names(path, head, body), {key: value for key, value in splits.items() if value})


def _blocks(lines: list[str]) -> dict[str, tuple[str, list[str]]]:
    """Top-level keys to the rest of their line and the lines below."""
    blocks: dict[str, tuple[str, list[str]]] = {}
    body: list[str] = []
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#") or line.startswith(("---", "...", "%")):
            continue
        if match := _KEY.match(line):
            body = []
            blocks[match[1]] = ((match[2] or "").strip(), body)
        else:
            body.append(line)
    return {key: ("" if head.startswith("#") else head, body) for key, (head, body) in blocks.items()}


def _names(path: Path, head: str, body: list[str]) -> tuple[str, ...]:
    if head:
        return _names_in_brackets(path, " ".join([head, *(line.strip() for line in body)]))
    pairs: dict[int, str] = {}
    for line in body:
        item, entry = _LIST_ITEM.match(line), _MAP_ITEM.match(line)
        if item is None and entry is None:
            raise _refused(path, line.strip()[:80])
        index = int(entry[1]) if entry else len(pairs)
        if index in pairs:
            raise _refused(path, f"index {index} twice")
        pairs[index] = _scalar(entry[2] if entry else item[1])  # type: ignore[index]
    return _in_order(path, pairs)


def _names_in_brackets(path: Path, text: str) -> tuple[str, ...]:
    whole = _BRACKETS.match(text)
    if whole is None:
        raise _refused(path, text[:80])
    inner = (whole[1] or whole[2] or "").strip()
    pairs: dict[int, str] = {}
    position = 0
    while position < len(inner):
        item = _IN_BRACKETS.match(inner, position)
        if item is None or (item[1] is None) == text.startswith("{"):
            raise _refused(path, inner[position : position + 80])
        index = len(pairs) if item[1] is None else int(item[1])
        if index in pairs:
            raise _refused(path, f"index {index} twice")
        pairs[index] = _scalar(item[2])
        position = item.end()
    return _in_order(path, pairs)


def _in_order(path: Path, pairs: dict[int, str]) -> tuple[str, ...]:
    if sorted(pairs) != list(range(len(pairs))):
        raise _refused(path, f"indices {sorted(pairs)[:10]}")
    if len(set(pairs.values())) != len(pairs) or "" in pairs.values():
        raise _refused(path, "an empty or a repeated name")
    return tuple(pairs[index] for index in range(len(pairs)))


def _scalar(text: str) -> str:
    """A plain or quoted value without its comment."""
    text = text.strip()
    if match := _QUOTED.match(text):
        quoted = match[1]
        if quoted[0] == "'":
            return quoted[1:-1].replace("''", "'")
        return re.sub(r"\\(.)", r"\1", quoted[1:-1])
    return re.split(r"(?:^|\s)#", text, maxsplit=1)[0].strip()


def _refused(path: Path, got: str) -> DataError:
    return DataError(
        f"cannot read the names in {path}",
        got=got,
        expected="names: as a list (- cat), as indices from 0 (0: cat), or as [cat, dog], every name once",
        fix="write them in one of those ways",
    )
