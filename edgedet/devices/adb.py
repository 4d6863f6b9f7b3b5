"""Devices that an adbd serves: boards with Linux or Android that have a Python with edgedet's base packages.

Tested against a stand-in that takes exactly these arguments and runs what they say. No device was connected.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgedet.devices.address import Address
from edgedet.devices.transport import Transport, shell_line

_REFUSED = {"unauthorized": "allow this computer on the device's screen"}
_UNREACHABLE = {
    "not found": "connect the device, or `adb connect HOST:PORT`; `adb devices` lists those that are there",
}


def _command(address: Address, remote: Sequence[str]) -> list[str]:
    """With -T no terminal changes the bytes."""
    return ["adb", "-s", address.target, "shell", "-T", shell_line(remote)]


TRANSPORT = Transport("adb", _command, _REFUSED, _UNREACHABLE)
