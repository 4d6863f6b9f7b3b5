"""How a program's standard streams are brought here from a device."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgedet.devices.address import Address


@dataclass(frozen=True, slots=True)
class Transport:
    """One way to devices; its instances are found through `edgedet.registry.TRANSPORTS`.

    Attributes:
        program: What must be installed here, "" for nothing.
        command: The command here that runs one there, its standard streams joined.
        refused: What the program says where the device does not let this user in, and what helps.
        unreachable: What it says where the device was never reached and trying again does not help, and what
            does help. Of a device that was reached it may be over in a moment.
    """

    program: str
    command: Callable[[Address, Sequence[str]], list[str]]
    refused: Mapping[str, str]
    unreachable: Mapping[str, str]


def shell_line(words: Sequence[str]) -> str:
    """Words as a POSIX shell reads them, with a home directory in front left for it to find."""
    return " ".join(
        f"~/{shlex.quote(word[2:])}" if word.startswith("~/") else shlex.quote(word) for word in words
    )
