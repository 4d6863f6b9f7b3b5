"""The process that runs a session's jobs on a device and outlives the connections to it.

Sent with `agent.py`, which starts it and describes the session's folder; only the standard library is used.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Who has this name has the machine. Tests have several on one.
MACHINE = os.environ.get("EDGEDET_MACHINE", "edgedet-device")

_POLL_S = 0.1
# Who looks whether there is a keeper has the keeper's lock for a moment.
_LOOKED_AT_S = 0.5
_LOG_TAIL = 4000

# The bytes of this file, where a host has sent them.
SOURCE: bytes = globals().get("SOURCE", b"")


def keep(root: Path, lease_s: float) -> None:
    """Run a session's jobs, one at a time, until the session ends or its lease does; then remove it."""
    with contextlib.suppress(OSError), (root / "keeper").open("a") as mine:
        limit = time.monotonic() + _LOOKED_AT_S
        while not lock(mine.fileno()):
            if time.monotonic() > limit:
                return  # another keeper runs
            time.sleep(_POLL_S)
        with contextlib.suppress(FileNotFoundError):
            (root / "turn").unlink()  # of a keeper before this one, which was killed
        device = os.open(str(root.parent), os.O_RDONLY)
        keeper = _Keeper(root, device)
        try:
            while not (root / "end").exists() and not keeper.is_forgotten(lease_s):
                keeper.look_after_jobs()
                time.sleep(_POLL_S)
        finally:
            keeper.stop()
            os.close(device)
    remove(root)


def remove(root: Path) -> None:
    """Remove a session's folder, and those around it when nothing else is in them."""
    shutil.rmtree(str(root), ignore_errors=True)
    for folder in root.parents[:2]:
        with contextlib.suppress(OSError):
            folder.rmdir()


class _Keeper:
    """A session's jobs, and when a host was last heard of.

    Args:
        root: The session's folder.
        device: Handle of the folder of sessions, whose lock is the device where names are not.
    """

    def __init__(self, root: Path, device: int) -> None:
        self._root, self._device = root, device
        self._renewed, self._since = 0, time.monotonic()
        self._name: socket.socket | None = None
        self._running: subprocess.Popen[bytes] | None = None
        self._job = root
        for pid in end_jobs(root):  # of a keeper before this one, which was killed
            if not (pid.parent / "result").exists():
                lost = {"ended": 1, "log": "what kept it running was ended"}
                write_whole(pid.parent / "result", json.dumps(lost).encode())

    def is_forgotten(self, lease_s: float) -> bool:
        """Whether the lease has run out, by a clock that nobody sets."""
        renewed = (self._root / "lease").stat().st_mtime_ns
        if renewed != self._renewed:
            self._renewed, self._since = renewed, time.monotonic()
        return time.monotonic() - self._since > lease_s

    def look_after_jobs(self) -> None:
        """Take the device when it is asked for; note the end of the job that runs and start the next."""
        if not self._has_turn():
            return
        if self._running is not None and self._running.poll() is not None:
            write_whole(self._job / "result", json.dumps(_result(self._running, self._job)).encode())
            self._running = None
        waiting = _waiting(self._root) if self._running is None else None
        if waiting is not None:
            self._job, self._running = waiting, _start(self._root, waiting)

    def _has_turn(self) -> bool:
        turn, wanted = self._root / "turn", (self._root / "wanted").exists()
        if turn.exists() and not wanted and self._running is None:
            turn.unlink()
            fcntl.flock(self._device, fcntl.LOCK_UN)
            if self._name is not None:
                self._name.close()
        elif wanted and not turn.exists() and self._take():
            turn.touch()
        return turn.exists()

    def _take(self) -> bool:
        """Take the machine, which two sessions at a time would slow, whoever's they are."""
        try:
            self._name = claim(MACHINE)
        except OSError:  # other systems than Linux
            return lock(self._device)
        return self._name is not None

    def stop(self) -> None:
        """End the job that runs, with all its processes."""
        if self._running is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._running.pid, signal.SIGKILL)
            self._running.wait()


def claim(name: str) -> socket.socket | None:
    """Take a name of this machine until the socket is closed or the process ends; None where it is taken.

    Such names ("abstract" ones of sockets) are a network namespace's: every user's, but not a container's.

    Raises:
        OSError: The system has no such names.
    """
    taken = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        taken.bind(f"\0{name}")
    except OSError as exc:
        taken.close()
        if exc.errno == errno.EADDRINUSE:
            return None
        raise
    return taken


def end_jobs(root: Path) -> list[Path]:
    """Kill what runs of a session's jobs; gives the files with their numbers."""
    files = list(root.glob("jobs/*/pid"))
    for pid in files:
        _end_group(int(pid.read_text()), str(pid.parent))
    return files


def _end_group(pid: int, words: str) -> None:
    """Kill a group whose leader still runs that command; a number alone may be another's by now."""
    with contextlib.suppress(OSError):
        if words.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.killpg(pid, signal.SIGKILL)


def is_kept(root: Path) -> bool:
    """Whether a session has a keeper."""
    with (root / "keeper").open("a") as file:
        return not lock(file.fileno())


def lock(handle: int) -> bool:
    """Take the lock of an open file, unless somebody has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _waiting(root: Path) -> Path | None:
    jobs = sorted(root.glob("jobs/*/order"))
    return next((path.parent for path in jobs if not (path.parent / "result").exists()), None)


def _start(root: Path, job: Path) -> subprocess.Popen[bytes]:
    order = json.loads((job / "order").read_bytes())
    with (job / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *order["arguments"]],
            cwd=str(root),
            env={**os.environ, **order["environment"]},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    write_whole(job / "pid", str(process.pid).encode())
    return process


def _result(process: subprocess.Popen[bytes], job: Path) -> dict[str, Any]:
    log = (job / "log").read_bytes()[-_LOG_TAIL:]
    return {"ended": process.returncode, "log": log.decode(errors="replace")}


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is whole or not there."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(data)
    os.replace(temporary, path)


if __name__ == "__main__":
    keep(Path(sys.argv[1]), float(sys.argv[2]))
