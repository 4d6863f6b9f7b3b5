"""Options of commands that run on other machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from edgedet.cli.progress import Bars
from edgedet.devices import LOCAL, Address, parse_address
from edgedet.parity import Devices

DevicesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="Where artifacts run: local, ssh://user@host[:port], adb://serial; may be given several times. "
        "?python=PATH behind it names the interpreter there.",
    ),
]
KeepOption = Annotated[
    bool, typer.Option("--keep-on-device", help="Leave what was sent on the device, for the next run.")
]


def addresses_from(names: Sequence[str] | None) -> tuple[Address, ...]:
    """The devices of a command line, each once; this machine where there are none.

    Raises:
        UsageError: A name is no device's.
    """
    return tuple(dict.fromkeys(parse_address(name) for name in names or [LOCAL]))


def devices_from(names: Sequence[str] | None, bars: Bars, *, keep: bool) -> Devices:
    """The devices of `edgedet parity`.

    Raises:
        UsageError: A name is no device's.
    """
    return Devices(addresses_from(names), keep, bars.say)
