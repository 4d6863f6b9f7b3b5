"""What a YOLO yaml says: the names of the classes, the places of the splits, the root and the shape of poses.

A yaml library is no dependency of the base install, and these files use a corner of the language: top-level
keys with a plain or quoted value or a list of such, and `names` as a block list, an indented mapping of
indices, or a list or mapping in brackets. What is written in another way is refused, never guessed.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from edgedet.data.splits import family
from edgedet.data.text import decode
from edgedet.data.yolo_rows import Keypoints
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

_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|.)")
# An escaped space is not among them: it is written where a long text goes on in the next line.
_ESCAPED = dict(zip('0abtnvfre"/\\N_LP', '\0\a\b\t\n\v\f\r\x1b"/\\\x85\xa0\u2028\u2029', strict=True))
_SURROGATES = frozenset({"ud8", "ud9", "uda", "udb", "udc", "udd", "ude", "udf"})

# Keys with another meaning; every other key with a value or a list may be a split.
_OTHER_KEYS = frozenset({"path", "names", "nc", "download", "kpt_shape", "flip_idx", "channels", "roboflow"})

_EXPECTED_NAMES = "names: as a list (- cat), as indices from 0 (0: cat), or as [cat, dog], every name once"
_EXPECTED_PLACES = "places of splits: a folder, a list of images, or a list of those"

_EXPECTED_ESCAPES = r"text in double quotes: escapes of YAML (\xE9, \u732B, \n, \\, \"), else single quotes"

_NOTHING = frozenset({"", "~", "null", "none", "false"})


@dataclass(frozen=True, slots=True)
class Description:
    """What a yaml says.

    Attributes:
        names: Of the classes, by index.
        splits: Folders and lists of images of each split, as they are written.
        path: The root, as it is written; "" for the folder of the yaml.
        keypoints: The shape of poses, where objects are poses.
    """

    names: tuple[str, ...] = ()
    splits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    path: str = ""
    keypoints: Keypoints | None = None


def read_description(path: Path) -> Description:
    """Read a YOLO yaml.

    Raises:
        DataError: It cannot be read, or what it says is not written in a way that is understood.
    """
    try:
        lines = decode(path.read_bytes()).splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise _refused(path, f"{type(exc).__name__}: {exc}") from exc
    try:
        return _description(path, _blocks(lines))
    except _EscapeError as exc:
        raise _refused(path, str(exc), _EXPECTED_ESCAPES) from exc


def _description(path: Path, blocks: dict[str, tuple[str, list[str]]]) -> Description:
    head, body = blocks.get("names", ("", []))
    return Description(
        _names(path, head, body),
        {key: places for key in blocks if key not in _OTHER_KEYS and (places := _places(path, key, blocks))},
        _scalar(blocks.get("path", ("", []))[0]),
        _keypoints(path, *blocks.get("kpt_shape", ("", []))),
    )


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


def _places(path: Path, key: str, blocks: dict[str, tuple[str, list[str]]]) -> tuple[str, ...]:
    """The folders and lists of a split; none for a key that is no split."""
    values = _list(*blocks[key])
    if values is None and family(key):
        raise _refused(path, f"{key}: {' '.join([blocks[key][0], *blocks[key][1]])[:80]}", _EXPECTED_PLACES)
    return tuple(value for value in values or () if value.casefold() not in _NOTHING)


def _list(head: str, body: list[str]) -> list[str] | None:
    """A value or a list of values, None where it is written in another way."""
    if head.startswith("["):
        whole = _BRACKETS.match(" ".join([head, *(line.strip() for line in body)]))
        items, position, inner = [], 0, (whole[1] or "").strip() if whole else "["
        while position < len(inner):
            item = _IN_BRACKETS.match(inner, position)
            if item is None or item[1] is not None:
                return None
            items.append(_scalar(item[2]))
            position = item.end()
        return items
    if head:
        return None if body or head[0] in "{&*!|>" else [_scalar(head)]
    matches = [_LIST_ITEM.match(line) for line in body]
    return None if None in matches else [_scalar(match[1]) for match in matches if match]


def _keypoints(path: Path, head: str, body: list[str]) -> Keypoints | None:
    if not head and not body:
        return None
    values = _list(head, body) or []
    if len(values) != 2 or not all(value.isdecimal() for value in values) or values[1] not in ("2", "3"):
        raise _refused(path, f"kpt_shape: {' '.join([head, *body])[:80]}", "kpt_shape: [points, 2 or 3]")
    return Keypoints(int(values[0]), int(values[1]))


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
        return _unescaped(quoted[1:-1])
    return re.split(r"(?:^|\s)#", text, maxsplit=1)[0].strip()


def _unescaped(text: str) -> str:
    """The text in double quotes, as YAML 1.2 (section 5.7) escapes it."""
    try:
        # Escapes of JSON write a character beyond 16 bits as two.
        return _ESCAPE.sub(_unescape, text).encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as exc:
        halves = [match[0] for match in _ESCAPE.finditer(text) if match[0][1:4].casefold() in _SURROGATES]
        raise _EscapeError(halves[0] if halves else text) from exc


def _unescape(match: re.Match[str]) -> str:
    digits = match[1] or match[2] or match[3]
    if digits is not None and int(digits, 16) <= sys.maxunicode:
        return chr(int(digits, 16))
    if match[0][1:] in _ESCAPED:
        return _ESCAPED[match[0][1:]]
    raise _EscapeError(match[0])


class _EscapeError(ValueError):
    """An escape that YAML does not have, or that continues a line."""


def _refused(path: Path, got: str, expected: str = _EXPECTED_NAMES) -> DataError:
    return DataError(
        f"cannot read the {expected.partition(':')[0]} in {path}",
        got=got,
        expected=expected,
        fix="write them in one of those ways",
    )
