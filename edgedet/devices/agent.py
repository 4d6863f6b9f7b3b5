"""The program on a device that stores files, runs jobs and streams what they write to the host.

A host sends this file and `keeper.py` through standard input when it connects, so that nothing need be
installed for them; only the standard library is used. Requests and answers are frames on standard input and
output.

A session is one folder. Its keeper, a process of its own, runs the session's jobs and outlives a connection
that is lost; a host that comes back goes on reading where it stopped. When none has come back for the time of
the lease, or the host has ended the session, the keeper removes the folder and ends.

::

    BASE/blobs/SHA256             files by content that stay for other runs
    BASE/SESSION/blobs/SHA256     those that do not
    BASE/SESSION/parts/SHA256     files whose transfer has not ended
    BASE/SESSION/jobs/NAME/       order: what to run; records/0, 1, 2, ...; result, when it has ended
    BASE/SESSION/lease            touched by every request
    BASE/SESSION/wanted           the host asks for the device
    BASE/SESSION/turn             there when the device is this session's
    BASE/SESSION/end              the host asks that the session be removed
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import queue
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from edgedet.devices.keeper import MACHINE, SOURCE, claim, end_jobs, is_kept, lock, remove, write_whole

# What a host looks for in what a shell may print before this program runs.
GREETING = b"\0edgedet-agent 1\n"

_LENGTH = struct.Struct(">I")
_POLL_S = 0.02
# How long a host waits for an answer whether it has the device.
_PATIENCE_S = 2.0
# So often is a keeper looked after while it is waited for.
_KEEPER_S = 1.0
# Sessions whose keeper has ended with its machine are removed when they are as old.
_STALE_S = 600.0
# What edgedet imports on a device, whatever it does there.
_NEEDED = ("numpy", "cv2", "pydantic")


def read_frame(read: Callable[[int], bytes]) -> tuple[dict[str, Any], bytes]:
    """The next frame: a JSON object, and as many bytes behind it as its `bytes` says.

    Args:
        read: Gives as many bytes as it is told, or fewer at the end.

    Raises:
        EOFError: The other side has gone.
    """
    header = json.loads(_whole(read, _LENGTH.unpack(_whole(read, _LENGTH.size))[0]))
    return header, _whole(read, header.get("bytes", 0))


def write_frame(stream: BinaryIO, header: dict[str, Any], payload: bytes = b"") -> None:
    """Write a frame that `read_frame` reads."""
    text = json.dumps({**header, "bytes": len(payload)} if payload else header).encode()
    stream.write(_LENGTH.pack(len(text)) + text + payload)
    stream.flush()


def _whole(read: Callable[[int], bytes], length: int) -> bytes:
    data = read(length) if length else b""
    if len(data) < length:
        raise EOFError
    return data


class Session:
    """A session's folder as the agent of one connection uses it.

    Args:
        name: Of the folder; a host that connects again gives it again.
        lease_s: How long the keeper waits for a request.
        stay: Whether blobs stay for other sessions.
    """

    def __init__(self, name: str, lease_s: float, *, stay: bool) -> None:
        base = _base()
        self.root = base / Path(name).name
        self.fresh = not self.root.exists()
        _sweep(base)
        self._stores = (base / "blobs", self.root / "blobs")
        self._checked: set[str] = set()
        self._new = self._stores[0 if stay else 1]
        self._new.mkdir(parents=True, exist_ok=True)
        for folder in ("jobs", "parts"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "lease").touch()
        (self.root / "keeper.py").write_bytes(SOURCE)
        with contextlib.suppress(OSError):
            self._name = claim(f"{MACHINE}/{self.root.name}")  # by which others find it on this machine
        self._lease_s = lease_s
        self._keeper, self._seen = self._start_keeper(), time.monotonic()

    def renew(self) -> None:
        """Begin the lease anew."""
        with contextlib.suppress(OSError):
            os.utime(str(self.root / "lease"))

    def has_turn(self) -> bool:
        """Ask for the device; whether it is this session's after a short wait. It stays asked for."""
        (self.root / "wanted").touch()
        limit = time.monotonic() + _PATIENCE_S
        while not (self.root / "turn").exists() and time.monotonic() < limit:
            self._see_to_keeper()
            time.sleep(_POLL_S)
        return (self.root / "turn").exists()

    def release(self) -> None:
        """Leave the device to others, and ask for it no longer."""
        with contextlib.suppress(FileNotFoundError):
            (self.root / "wanted").unlink()
        limit = time.monotonic() + _PATIENCE_S
        while (self.root / "turn").exists() and time.monotonic() < limit:
            time.sleep(_POLL_S)

    def here(self, names: list[str]) -> list[str]:
        """Those of some sessions that are on this machine, whoever's they are."""
        return [name for name in names if _is_here(self.root.parent / name)]

    def missing(self, names: list[str]) -> dict[str, int]:
        """Blobs that are not here, and how many bytes of each are. What other sessions left is checked."""
        for name in names:
            kept = self._stores[0] / name
            if name not in self._checked and kept.is_file() and _sha256(kept) != name:
                kept.unlink()  # the machine stopped while it was written
            self._checked.add(name)
        return {name: _size(self._part(name)) for name in names if self._find(name) is None}

    def put(self, name: str, size: int, offset: int, data: bytes) -> str:
        """Take a piece of a blob; returns what is wrong with the whole, or ""."""
        if self._find(name) is not None:  # its last piece came before, and the answer did not
            return ""
        part = self._part(name)
        with part.open("r+b" if part.exists() else "w+b") as file:
            file.truncate(offset)
            file.seek(offset)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if offset + len(data) < size:
            return ""
        found = _sha256(part)
        if found != name:
            part.unlink()
            return f"sha256 {found[:12]}…"
        os.replace(part, self._new / name)
        return ""

    def lay(self, files: dict[str, str]) -> None:
        """Give blobs their names, by paths relative to the session's folder."""
        for relative, name in files.items():
            path = (self.root / relative).resolve()
            path.relative_to(self.root.resolve())  # raises where it leaves the folder
            blob = self._find(name)
            if blob is None:
                raise FileNotFoundError(2, "no such blob", name)
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(blob, path)
            except OSError:  # a file system without links
                shutil.copyfile(blob, path)

    def unpack(self, archive: str, folder: str) -> None:
        """Unpack a .zip that was laid, unless it was before."""
        target = self.root / folder
        if target.exists():
            return
        unpacked = self.root / (folder + ".new")
        shutil.rmtree(unpacked, ignore_errors=True)
        with zipfile.ZipFile(str(self.root / archive)) as file:
            file.extractall(str(unpacked))
        os.replace(unpacked, target)

    def start(self, name: str, order: dict[str, Any]) -> None:
        """Have the keeper run a job, unless it was told before."""
        job = self.root / "jobs" / name
        (job / "records").mkdir(parents=True, exist_ok=True)
        if not (job / "order").exists():
            write_whole(job / "order", json.dumps(order).encode())

    def follow(self, name: str, number: int, host: Host) -> None:
        """Send the job's records from that number on, and at last how it ended."""
        job = self.root / "jobs" / name
        for record in (job / "records").iterdir():  # the host has those of whose taking it could not tell
            if record.name.isdigit() and int(record.name) < number:
                self.forget(name, int(record.name))
        while True:
            ended = (job / "result").exists()  # asked first: it is written behind the last record
            record = job / "records" / str(number)
            if record.exists():
                host.send({"record": number}, record.read_bytes())
                number += 1
            elif ended:
                host.send(json.loads((job / "result").read_bytes()))
                return
            elif not self.root.exists():
                host.send({"ended": 1, "log": "the session's folder was removed"})
                return
            elif host.is_gone:
                raise EOFError
            else:
                self._see_to_keeper()
                time.sleep(_POLL_S)

    def forget(self, name: str, number: int) -> None:
        """Remove a record of a job, which the host has."""
        with contextlib.suppress(FileNotFoundError):
            (self.root / "jobs" / name / "records" / str(number)).unlink()

    def end(self) -> None:
        """Have the keeper remove the session, and wait until it did."""
        with contextlib.suppress(FileNotFoundError):  # somebody removed it
            (self.root / "end").touch()
        limit = time.monotonic() + 20
        while self.root.exists() and time.monotonic() < limit:
            self._see_to_keeper()
            time.sleep(_POLL_S)
        if not self.root.exists():
            remove(self.root)  # what is around it, where the keeper is not yet so far

    def _start_keeper(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, str(self.root / "keeper.py"), str(self.root), str(self._lease_s)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _see_to_keeper(self) -> None:
        """Start another keeper where the one that was has been killed, perhaps to get its memory."""
        if time.monotonic() - self._seen < _KEEPER_S:
            return
        self._seen = time.monotonic()
        with contextlib.suppress(OSError):  # the folder is gone, and with it what there was to keep
            if self._keeper.poll() is not None and not is_kept(self.root):
                self._keeper = self._start_keeper()

    def _find(self, name: str) -> Path | None:
        return next((store / name for store in self._stores if (store / name).is_file()), None)

    def _part(self, name: str) -> Path:
        return self.root / "parts" / name


class Host:
    """The other side of the connection.

    Args:
        requests: What it writes.
        replies: What it reads.
    """

    def __init__(self, requests: BinaryIO, replies: BinaryIO) -> None:
        self._requests, self._replies = requests, replies
        self._writing, self._beat = threading.Lock(), threading.Event()
        self._asked: queue.Queue[tuple[dict[str, Any], bytes]] = queue.Queue()
        self.is_gone = False

    def listen(self, session: Session) -> None:
        """Read what it says in a thread, and answer its heartbeats in another, whatever takes long here."""
        threading.Thread(target=self._listen, args=(session,), daemon=True).start()
        threading.Thread(target=self._answer, daemon=True).start()

    def send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        """Send it a frame."""
        with self._writing:
            write_frame(self._replies, header, payload)

    def next_request(self) -> tuple[dict[str, Any], bytes]:
        """The next thing that it asks for.

        Raises:
            EOFError: It has gone.
        """
        request, payload = self._asked.get()
        if self.is_gone:
            raise EOFError
        return request, payload

    def _listen(self, session: Session) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                request, payload = read_frame(self._requests.read)
                session.renew()
                if request["do"] == "stay":
                    self._beat.set()
                elif request["do"] == "taken":
                    session.forget(request["job"], request["number"])
                else:
                    self._asked.put((request, payload))
        self.is_gone = True
        self._asked.put(({}, b""))

    def _answer(self) -> None:
        with contextlib.suppress(OSError):
            while self._beat.wait():
                self._beat.clear()
                self.send({"beat": 1})  # waits where the host is slow to read


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer a host until it has gone."""
    replies.write(GREETING)
    hello, _ = read_frame(requests.read)
    host = Host(requests, replies)
    try:
        session = Session(hello["session"], hello["lease_s"], stay=hello["stay"])
    except OSError as exc:
        host.send({"failed": f"{exc.strerror or exc}: {exc.filename}"})
        return
    host.send({"root": str(session.root), "fresh": session.fresh, **_about(session.root)})
    host.listen(session)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _answer_all(session, host)


def _answer_all(session: Session, host: Host) -> None:
    do = ""
    while do != "end":
        request, payload = host.next_request()
        do = request["do"]
        if do == "follow":
            session.follow(request["job"], request["number"], host)
            continue
        try:
            answer = _answer(session, do, request, payload)
        except (OSError, ValueError, zipfile.BadZipFile) as exc:
            answer = {"failed": f"{type(exc).__name__}: {exc}"}
        host.send(answer)


def _answer(session: Session, do: str, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
    if do == "turn":
        return {"here": session.here(request["others"]), "turn": session.has_turn()}
    if do == "missing":
        return {"missing": session.missing(request["names"])}
    if do == "put":
        return {"wrong": session.put(request["name"], request["size"], request["offset"], payload)}
    if do == "release":
        session.release()
    elif do == "lay":
        session.lay(request["files"])
    elif do == "unpack":
        session.unpack(request["archive"], request["folder"])
    elif do == "start":
        session.start(request["job"], request["order"])
    elif do == "end":
        session.end()
        return {"left": str(session.root) if session.root.exists() else ""}
    return {}


def _about(root: Path) -> dict[str, Any]:
    return {
        "python": list(sys.version_info[:3]),
        "missing": [name for name in _NEEDED if importlib.util.find_spec(name) is None],
        "free_bytes": shutil.disk_usage(str(root)).free,
    }


def _base() -> Path:
    """The folder of sessions: the first that is this user's alone.

    Raises:
        OSError: There is none.
    """
    home = os.path.expanduser("~")
    cache = os.environ.get("XDG_CACHE_HOME") or (os.path.join(home, ".cache") if home != "/" else "")
    refused = OSError(0, "no folder to write in", cache)
    for folder, names in (
        (cache, ()),
        ("/data/local/tmp", ()),
        (tempfile.gettempdir(), (f"user-{os.getuid()}",)),
    ):
        if not folder or (folder != cache and not os.path.isdir(folder)):
            continue
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            base = _private(Path(folder), (*names, "edgedet", "device"), own=folder == cache)
            if os.access(str(base), os.W_OK):
                return base
        except OSError as exc:
            refused = exc
    raise refused


def _private(path: Path, names: tuple[str, ...], *, own: bool) -> Path:
    """Make folders, each in the one before, and see that nobody else can put anything into them.

    Args:
        path: Where; others may write there, if they cannot rename what is not theirs.
        names: Of the folders.
        own: Whether that is the user's own place, where folders that are open to others are closed; where all
            may write, somebody may have prepared them.

    Raises:
        OSError: Another user has a folder, or can write into it, or it is none.
    """
    for name in names:
        path = path / name
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.lstat()
        is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
        if own and is_own:
            path.chmod(0o700)
        elif not is_own or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(errno.EPERM, "not a folder of this user's alone", str(path))
    return path


def _is_here(session: Path) -> bool:
    try:
        name = claim(f"{MACHINE}/{session.name}")
    except OSError:
        return session.exists()
    if name is not None:
        name.close()
    return name is None


def _sweep(base: Path) -> None:
    """Remove sessions that no keeper looks after: it was killed, or its machine switched off."""
    for lease in base.glob("*/lease"):
        root = lease.parent
        try:
            age = time.time() - lease.stat().st_mtime
            with (root / "keeper").open("a") as handle:
                if age > _STALE_S and lock(handle.fileno()):
                    end_jobs(root)
                    shutil.rmtree(str(root), ignore_errors=True)
        except OSError:
            continue


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o077)
    serve(sys.stdin.buffer, sys.stdout.buffer)
    os._exit(0)  # a thread may still read, and Python would not end before it has read on
