"""Text from files and users, as terminals and UTF-8 can take it."""

from __future__ import annotations

import re

# Control characters but for tab and line feed; and those that turn the direction of what follows.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with what no UTF-8 can hold (bytes of file names, halves of surrogate pairs) written out."""
    return encoded(text).decode()


def encoded(text: str) -> bytes:
    """The text in UTF-8; what that cannot hold is written out."""
    return text.encode("utf-8", "backslashreplace")


def shown(text: str) -> str:
    """The text with what a terminal would obey, and not show, written out."""
    return _COMMANDS.sub(lambda found: ascii(found[0])[1:-1], printable(text))
