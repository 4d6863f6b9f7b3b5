"""A remote ARM device without the hardware: an sshd in an emulated arm64 root on this machine.

All that it runs lives in process and mount namespaces of its own, whose first process ends with its standard
input. So nothing is left behind, neither a process nor a mount, even where the tests are killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Cores of this design have no SVE, as most phones; qemu's own choice has every extension that it knows.
CPU = "cortex-a76"
# The exit status of both scripts where this machine cannot do it.
CANNOT = 3
SECONDS_TO_START = 60


class CannotStartError(Exception):
    """Why there can be no arm64 device on this machine; tests that need one are skipped with it."""


@dataclass(frozen=True, slots=True)
class Arm64Host:
    """A running device.

    Attributes:
        host: The address that its sshd listens on.
        port: The port that it listens on.
        user: Whom to log in as.
        identity: The private key that it accepts.
        known_hosts: A file with the key that it has.
        ssh_config: A file for `ssh -F` and `scp -F` that holds all of these.
        python: The path of Python on the device, which finds the runtimes.
        pid: The process whose child is the first process of the device.
    """

    host: str
    port: int
    user: str
    identity: Path
    known_hosts: Path
    ssh_config: Path
    python: str
    pid: int

    @property
    def url(self) -> str:
        """The device as the command line names it."""
        return f"ssh://{self.user}@{self.host}:{self.port}"

    def run(self, command: str, *, stdin: bytes | None = None, check: bool = True) -> str:
        """What a shell command there writes to standard output.

        Raises:
            AssertionError: It ended with another status than 0, and `check` is set.
        """
        ssh = ["ssh", "-F", str(self.ssh_config), self.host, command]
        done = subprocess.run(ssh, input=stdin, capture_output=True, check=False)
        assert not check or done.returncode == 0, (
            f"{command}: status {done.returncode}\n{done.stderr.decode()}"
        )
        return done.stdout.decode()

    def cut_connections(self) -> int:
        """End the sshd processes of open connections and none other, as a network that breaks down would.

        What ran over them goes on until it misses its connection, and new connections are accepted.

        Returns:
            How many processes were ended.
        """
        first = children(self.pid)
        listeners = [pid for parent in first for pid in children(parent) if _runs_sshd(pid)]
        sessions = [pid for listener in listeners for pid in children(listener)]
        for pid in sessions:
            os.kill(pid, signal.SIGKILL)
        return len(sessions)


def children(parent: int) -> list[int]:
    """Processes whose parent is this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found


def _runs_sshd(pid: int) -> bool:
    return b"/usr/sbin/sshd" in Path(f"/proc/{pid}/cmdline").read_bytes()


def build_root() -> Path:
    """The folder of the arm64 root, built if it is not there or was made of other versions.

    Raises:
        CannotStartError: This machine cannot build it.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(os.environ.get("EDGEDET_ARM64_ROOT") or cache / "edgedet" / "arm64-root").absolute()
    command = [str(HERE / "build_root.sh"), str(root)]
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == CANNOT:
        raise CannotStartError(done.stderr.strip())
    assert done.returncode == 0, f"build_root.sh ended with {done.returncode}:\n{done.stderr}"
    return root


@contextmanager
def running_host() -> Iterator[Arm64Host]:
    """A device that accepts connections until the block ends.

    Raises:
        CannotStartError: This machine cannot run one.
    """
    _check_machine()
    root = build_root()
    with tempfile.TemporaryDirectory(prefix="arm64-") as name:
        folder, port = Path(name), _free_port()
        _write_files(folder, port)
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", str(HERE / "start_sshd.sh")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, str(root), name],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | {"QEMU_CPU": CPU},
            )
        try:
            _wait_until_it_listens(process, folder / "log")
            yield Arm64Host(
                host="127.0.0.1",
                port=port,
                user="root",
                identity=folder / "identity",
                known_hosts=folder / "known_hosts",
                ssh_config=folder / "ssh_config",
                python="/usr/bin/python3",
                pid=process.pid,
            )
        finally:
            process.communicate()


def _check_machine() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise CannotStartError("no arm64 root: it takes Linux, and root's rights to mount what is in it")
    missing = [tool for tool in ("ssh", "ssh-keygen", "unshare") if shutil.which(tool) is None]
    if missing:
        raise CannotStartError(
            f"no arm64 root: {', '.join(missing)} not found; apt-get install openssh-client"
        )
    attempt = ["unshare", "--mount", "--pid", "--fork", "true"]
    done = subprocess.run(attempt, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotStartError(f"no arm64 root: no namespaces can be made here ({done.stderr.strip()})")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _write_files(folder: Path, port: int) -> None:
    """Keys and settings of both sides; the folder `run` is the device's /run."""
    run = folder / "run"
    run.mkdir()
    for key in (folder / "identity", run / "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True)
    shutil.copy(folder / "identity.pub", run / "authorized_keys")
    host_key = (run / "host_key.pub").read_text().strip()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    (run / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey /run/host_key\nAuthorizedKeysFile /run/authorized_keys\n"
        "PasswordAuthentication no\nStrictModes no\nPidFile none\nPrintMotd no\nPrintLastLog no\n"
        f"Subsystem sftp internal-sftp\nSetEnv QEMU_CPU={CPU}\n"
    )
    (folder / "ssh_config").write_text(
        f"Host 127.0.0.1\n  Port {port}\n  User root\n  IdentityFile {folder / 'identity'}\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {folder / 'known_hosts'}\n"
        "  GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n  BatchMode yes\n  LogLevel ERROR\n"
    )


def _wait_until_it_listens(process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + SECONDS_TO_START
    while process.poll() is None and time.monotonic() < end:
        if "Server listening" in log.read_text():
            return
        time.sleep(0.05)
    if process.returncode == CANNOT:
        raise CannotStartError(log.read_text().strip())
    raise AssertionError(
        f"the device's sshd does not listen (status {process.returncode}):\n{log.read_text()}"
    )
