"""Where a device is: `local`, `ssh://user@host:port` or `adb://serial`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from edgedet.errors import UsageError

LOCAL = "local"

_EXAMPLES = "local, ssh://user@host[:port] or adb://serial, with ?python=PATH behind it where it needs one"
# What may stand on a command line without being taken for an option or for something else by a shell.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@%-]*")
_PYTHON = re.compile(r"[A-Za-z0-9_~/.][A-Za-z0-9_~/.+-]*")


@dataclass(frozen=True, slots=True)
class Address:
    """A device as it is named on a command line.

    Attributes:
        transport: A name in `edgedet.registry.TRANSPORTS`.
        target: What that transport connects to: `user@host`, or a serial number.
        port: Of ssh; None for its own choice.
        python: The interpreter on the device.
    """

    transport: str
    target: str = ""
    port: int | None = None
    python: str = "python3"

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"{self.transport}://{self.target}{port}" if self.target else self.transport


def parse_address(text: str) -> Address:
    """Read the name of a device.

    Raises:
        UsageError: It is none, or holds a password.
    """
    if text == LOCAL:
        return Address(LOCAL)
    try:
        parts = urlsplit(text)
        port, options = parts.port, parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    except ValueError as exc:
        raise _unusable(text) from exc
    if parts.password is not None:
        raise UsageError(
            "cannot take a password",
            got=f"{parts.scheme}://{parts.username}:…@{parts.hostname}",
            expected="a key, which nobody can read from a command line",
            fix=f"ssh-copy-id {parts.username}@{parts.hostname}, then leave the password out",
        )
    has_port = parts.scheme == "ssh" and port is not None
    target = parts.netloc.rpartition(":")[0] if has_port else parts.netloc
    python = options.pop("python", ["python3"])[0]
    good = _NAME.fullmatch(target) and _PYTHON.fullmatch(python)
    if parts.scheme not in ("adb", "ssh") or not good or options or parts.path.strip("/") or parts.fragment:
        raise _unusable(text)
    return Address(parts.scheme, target, port if parts.scheme == "ssh" else None, python)


def _unusable(text: str) -> UsageError:
    user, at, rest = text.rpartition("@")
    scheme, separator, name = user.rpartition("://")
    if at and ":" in name:  # what follows is a password
        text = f"{scheme}{separator}{name.partition(':')[0]}:…@{rest}"
    return UsageError(
        "there is no such kind of device",
        got=repr(text),
        expected=_EXAMPLES,
        fix="write it like one of those",
    )
