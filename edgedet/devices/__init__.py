"""Other machines that detectors run on: reached by ssh or adb, with nothing of edgedet installed there.

The torch-free part of edgedet and the artifacts are sent once, by content. A job runs on the device and
writes records, which the host reads; a connection that is lost is opened again and read on.
"""

from edgedet.devices.address import LOCAL, Address, parse_address
from edgedet.devices.device import RemoteDevice

__all__ = ["LOCAL", "Address", "RemoteDevice", "parse_address"]
