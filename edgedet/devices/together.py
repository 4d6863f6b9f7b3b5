"""Work on several devices at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

from edgedet.devices.address import Address
from edgedet.devices.device import RemoteDevice
from edgedet.devices.turns import take_turns

T = TypeVar("T")


def open_all(
    addresses: Iterable[Address], stack: ExitStack, *, stay: bool, tell: Callable[[str], None]
) -> list[RemoteDevice]:
    """Connect to devices, which the stack closes, and wait until no other run has any of them.

    Raises:
        As `RemoteDevice` and `take_turns`.
    """
    devices = [
        stack.enter_context(RemoteDevice(address, stay=stay, tell=tell, wait=False)) for address in addresses
    ]
    take_turns(devices, tell)
    return devices


def on_all(devices: Sequence[RemoteDevice], work: Callable[[RemoteDevice], T]) -> list[T | Exception]:
    """Do something on each device, in threads.

    Args:
        devices: Each in the hands of one thread.
        work: What to do.

    Returns:
        What came of it, or the exception, in the order of the devices. What interrupts the caller interrupts
        all of them.
    """

    def tried(device: RemoteDevice) -> T | Exception:
        try:
            return work(device)
        except Exception as exc:  # of one device, which is no reason to lose what the others did
            return exc

    with ThreadPoolExecutor(max(1, len(devices))) as pool:
        try:
            return list(pool.map(tried, devices))
        except BaseException:
            for device in devices:
                device.interrupt()
            raise
