"""Devices that an sshd serves: OpenSSH's own client, with the user's configuration, keys and agent."""

from __future__ import annotations

import os
from collections.abc import Sequence

from edgedet.devices.address import Address
from edgedet.devices.transport import Transport, shell_line

# Names another configuration than the user's own.
CONFIG_VARIABLE = "EDGEDET_SSH_CONFIG"

# A host whose key is not known is refused and nobody is asked for a password: runs go on without a person.
# Three silent intervals are a lost connection.
_OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "15",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
}

_REFUSED = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": "find out why its key changed before you trust it",
    "Host key verification failed": "connect once with ssh, compare the key with the device's and accept it",
    "Permission denied": "let the device know your key: ssh-copy-id",
}
_UNREACHABLE = {
    "Could not resolve hostname": "check the name",
    "Bad configuration option": "mend the configuration of ssh",
}


def _command(address: Address, remote: Sequence[str]) -> list[str]:
    config = os.environ.get(CONFIG_VARIABLE)
    options = [word for name, value in _OPTIONS.items() for word in ("-o", f"{name}={value}")]
    port = [] if address.port is None else ["-p", str(address.port)]
    words = ["ssh", *(["-F", config] if config else []), "-T", *options, *port]
    return [*words, "--", address.target, shell_line(remote)]


TRANSPORT = Transport("ssh", _command, _REFUSED, _UNREACHABLE)
