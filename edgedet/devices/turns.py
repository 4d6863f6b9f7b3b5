"""One run at a time has a device: whose turn it is."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgedet.devices.address import Address
from edgedet.errors import UsageError

# Runs that were in each other's way try again after different times, at most these.
_MOST_DELAY_S = 2.0


@dataclass(frozen=True, slots=True)
class Turn:
    """What a device answers to who asks for it.

    Attributes:
        has: Whether it is the asking session's.
        here: Names of the others that it was asked about and that are on the same machine.
    """

    has: bool
    here: frozenset[str]


class Contended(Protocol):
    """A device as one run of several sees it: `RemoteDevice`, which could not be imported here."""

    address: Address

    @property
    def session(self) -> str:
        """The run's name there."""

    def ask_turn(self, others: Sequence[str]) -> Turn:
        """Ask for the device, and wait for it a moment."""

    def release(self) -> None:
        """Leave it to other runs."""


def take_turns(devices: Sequence[Contended], tell: Callable[[str], None]) -> None:
    """Wait until all of the devices are this run's.

    Two runs that each have one of them and wait for the other's would wait for ever. So a run waits while it
    has none, and leaves those that it took when the next is busy.

    Args:
        devices: In any order.
        tell: Takes one sentence where it has to wait.

    Raises:
        UsageError: Two of them are one machine.
        MissingDeviceError: One is gone.
    """
    order, told = list(devices), False
    while (busy := _first_busy(order)) is not None:
        if not told:
            tell(f"{busy.address} is busy with another run; waiting for it")
            told = True
        taken = order[: order.index(busy)]
        for device in taken:
            device.release()
        order.sort(key=lambda device: device is not busy)
        if taken:
            time.sleep(random.uniform(0, _MOST_DELAY_S))  # noqa: S311


def _first_busy(order: Sequence[Contended]) -> Contended | None:
    """The first that is not this run's, behind those that it has taken."""
    for device in order:
        others = {other.session: other for other in order if other is not device}
        turn = device.ask_turn(tuple(others))
        for name in turn.here:
            raise _one_machine(others[name], device)
        if not turn.has:
            return device
    return None


def _one_machine(one: Contended, other: Contended) -> UsageError:
    return UsageError(
        "two of the devices are one machine",
        got=f"{one.address} and {other.address}",
        expected="addresses of different machines",
        fix="leave one of them out: an artifact cannot be measured beside itself",
    )
