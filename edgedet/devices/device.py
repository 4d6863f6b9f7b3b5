"""A device that jobs run on, through as many connections as it takes."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from edgedet.devices.address import Address
from edgedet.devices.blob import PIECE_BYTES, Blob
from edgedet.devices.connection import Connection, ConnectionLostError
from edgedet.devices.payload import code_archive
from edgedet.devices.records import Record, error_from
from edgedet.devices.turns import Turn, take_turns
from edgedet.errors import InternalError, MissingDeviceError
from edgedet.progress import Track, silent

T = TypeVar("T")

_OLDEST_PYTHON = (3, 11)
# How long a device is left what was sent when its host does not come back.
LEASE_S = 120.0
# How long a host tries to come back.
_RECONNECT_S = 90.0
_CODE = "code"


class RemoteDevice:
    """A connected device; a context manager that leaves nothing there.

    Args:
        address: Where.
        stay: Leave what was sent, so that the next run need not send it.
        tell: Takes sentences for a person who waits.
        reconnect_s: How long to try when a connection is lost.
        lease_s: How long the device keeps the session for a host that does not come back.
        wait: Until no other run has the device. Who does not let it wait calls `take_turns`.

    Attributes:
        address: Where.
        about: What it said of itself when it was reached: `root` (the folder of the session there), `python`
            (its version), `missing` (packages that edgedet needs and it lacks), `free_bytes`.

    Raises:
        MissingDeviceError: The device cannot be reached, or has no Python that edgedet runs on.
    """

    def __init__(
        self,
        address: Address,
        *,
        stay: bool = False,
        tell: Callable[[str], None] = lambda _: None,
        reconnect_s: float = _RECONNECT_S,
        lease_s: float = LEASE_S,
        wait: bool = True,
    ) -> None:
        self.address = address
        self._tell, self._reconnect_s = tell, reconnect_s
        self._hello = {"session": secrets.token_hex(8), "lease_s": lease_s, "stay": stay}
        self._connection: Connection | None = None
        self._known = self._following = False
        self._interrupted = threading.Event()
        self._told_of: float | None = None
        self._jobs = 0
        self.about = self._try(lambda connection: connection.about)
        self._known = True
        try:
            self._check_python()
            if wait:
                take_turns([self], tell)
        except BaseException:
            self.close()
            raise

    @property
    def session(self) -> str:
        """Its name on the device."""
        return str(self._hello["session"])

    def ask_turn(self, others: Sequence[str] = ()) -> Turn:
        """Ask for the device and wait a moment: a transfer would disturb what another run measures.

        Args:
            others: Names of sessions that may be on the same machine.
        """
        answer = self._try(lambda connection: connection.ask({"do": "turn", "others": list(others)}))
        return Turn(answer["turn"], frozenset(answer["here"]))

    def release(self) -> None:
        """Leave the device to other runs until it is asked for again."""
        self._try(lambda connection: connection.ask({"do": "release"}))

    def send(self, files: Mapping[str, Blob], track: Track = silent) -> int:
        """Give the device files under these names, relative to the session; returns how many bytes it took.

        What the device has by content is not sent, and a file that was cut goes on where it was cut.

        Raises:
            MissingDeviceError: The device is gone.
            EdgedetError: It has no room.
        """
        blobs = {blob.sha256: blob for blob in files.values()}
        missing = self._try(lambda c: c.ask({"do": "missing", "names": list(blobs)}))["missing"]
        sizes = {name: blobs[name].size - start for name, start in missing.items()}
        self._check_room(sum(sizes.values()))
        pieces = sum(max(1, -(-size // PIECE_BYTES)) for size in sizes.values())
        wanted = (
            (blobs[name], *piece) for name, start in missing.items() for piece in blobs[name].pieces(start)
        )
        for blob, offset, data in track(wanted, f"{self.address}: sending", pieces):
            self._put(blob, offset, data)
        names = {name: blob.sha256 for name, blob in files.items()}
        self._try(lambda c: c.ask({"do": "lay", "files": names}))
        return sum(sizes.values())

    def run(self, kind: str, order: Mapping[str, Any]) -> Iterator[Record]:
        """Run a job of edgedet and give its records as they come.

        Args:
            kind: A name in `edgedet.registry.JOBS`.
            order: What the job reads, plain JSON.

        Raises:
            EdgedetError: What the job raised.
            InternalError: It ended without a word.
            MissingDeviceError: The device is gone.
        """
        return self.execute(["-m", "edgedet.devices.job"], {"kind": kind, "job": dict(order)})

    def execute(self, arguments: Sequence[str], order: Mapping[str, Any]) -> Iterator[Record]:
        """Run the device's Python, which finds edgedet, and give the records that it writes.

        Args:
            arguments: Of the interpreter; the job's folder, which has `order` and `records`, follows them.
            order: What `order` holds beside them.

        Raises:
            As `run`.
        """
        self._send_code()
        self._jobs += 1
        name = f"{self._jobs:04d}"
        root = self.about["root"]
        request = {
            **order,
            "arguments": [*arguments, f"{root}/jobs/{name}"],
            "environment": {
                "PYTHONPATH": f"{root}/{_CODE}",
                "PYTHONSAFEPATH": "1",
                # Where vendors write what they keep between runs.
                "TMPDIR": f"{root}/jobs/{name}",
                "XDG_CACHE_HOME": f"{root}/cache",
            },
        }
        self._try(lambda c: c.ask({"do": "start", "job": name, "order": request}))
        for data in self._follow(name):
            record = Record.from_bytes(data)
            if "error" in record.header:
                raise error_from(record.header, str(self.address))
            yield record

    def interrupt(self) -> None:
        """End what another thread does with this device; it raises there. Then `close`."""
        self._interrupted.set()
        connection = self._connection
        if connection is not None:
            connection.kill()

    def close(self) -> None:
        """Remove the session there and disconnect; what could not be removed is told and raises nothing."""
        if not self._known:
            return
        self._known = False
        if self._following:  # what comes next through this connection is a record
            self._drop()
        left = ""
        for _ in range(2):  # the connection at hand may be lost
            try:
                self._connection = self._connection or Connection(self.address, self._hello, reached=True)
                left = self._connection.ask({"do": "end"})["left"]
                break
            except Exception as exc:  # whatever it is, what was measured is not lost for it
                left = f"what was sent, for {self._hello['lease_s']:g} s ({exc})"
                self._drop()
        self._drop()
        if left:
            self._tell(f"{self.address} may keep {left}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, blob: Blob, offset: int, data: bytes) -> None:
        request = {"do": "put", "name": blob.sha256, "size": blob.size, "offset": offset}
        wrong = self._try(lambda c: c.ask(request, data))["wrong"]
        if wrong:
            raise InternalError(
                f"{self.address} did not get a file whole",
                got=wrong,
                expected=f"sha256 {blob.sha256[:12]}…",
                fix="run again; the file may have been changed meanwhile",
            )

    def _send_code(self) -> None:
        archive = Blob.of(code_archive())
        self.send({f"{_CODE}.zip": archive})
        self._try(lambda c: c.ask({"do": "unpack", "archive": f"{_CODE}.zip", "folder": _CODE}))

    def _follow(self, name: str) -> Iterator[bytes]:
        number, lost_at = 0, None
        self._following = True
        while True:
            try:
                connection = self._open()
                connection.send({"do": "follow", "job": name, "number": number})
                while True:
                    frame, payload = connection.receive()
                    lost_at = None
                    if "record" in frame:
                        yield payload
                        number += 1
                        connection.send({"do": "taken", "job": name, "number": number - 1})
                    else:
                        self._following = False
                        self._check_end(frame)
                        return
            except ConnectionLostError as exc:
                lost_at = time.monotonic() if lost_at is None else lost_at
                self._wait(exc, lost_at)

    def _check_end(self, frame: Mapping[str, Any]) -> None:
        if frame["ended"] == 0:
            return
        killed = " (killed: perhaps it had too little memory)" if frame["ended"] == -9 else ""
        raise InternalError(
            f"a job on {self.address} ended early",
            got=f"exit status {frame['ended']}{killed}: {' '.join(frame['log'].split())[-500:]}",
            expected="a result",
            fix="run it once more; report it if it stays",
        )

    def _try(self, action: Callable[[Connection], T]) -> T:
        """Do something that can be done twice, through a new connection where one is lost."""
        lost_at: float | None = None
        while True:
            try:
                return action(self._open())
            except ConnectionLostError as exc:
                lost_at = time.monotonic() if lost_at is None else lost_at
                self._wait(exc, lost_at)

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = Connection(self.address, self._hello, reached=self._known)
            if self._known and self._connection.about["fresh"]:
                raise MissingDeviceError(
                    f"{self.address} has forgotten this run",
                    got="a session that is new to it",
                    expected=f"the one that was cut less than {self._hello['lease_s']:g} seconds ago",
                    fix="run again; it may have been restarted",
                )
        if self._interrupted.is_set():
            raise ConnectionLostError("it was interrupted")
        return self._connection

    def _wait(self, lost: ConnectionLostError, lost_at: float) -> None:
        """Before the next try; raises where it would be the first that ever worked, or one too many."""
        self._drop()
        given_up = self._interrupted.is_set() or not self._known
        if given_up or time.monotonic() - lost_at > self._reconnect_s:
            raise MissingDeviceError(
                f"cannot connect to {self.address}",
                got=str(lost) or "no answer",
                expected="a device that answers",
                fix=f"check that it is on and reachable: {_by_hand(self.address)}"
                + ("; then run again, it removes by itself what it was sent" if self._known else ""),
            ) from lost
        if self._told_of != lost_at:
            self._told_of = lost_at
            self._tell(f"lost the connection to {self.address}; connecting again")
        self._interrupted.wait(min(5.0, 0.5 + 0.5 * (time.monotonic() - lost_at)))

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _check_python(self) -> None:
        found = tuple(self.about["python"][:2])
        if found < _OLDEST_PYTHON:
            raise MissingDeviceError(
                f"{self.address} has too old a Python",
                got=".".join(map(str, found)),
                expected="3.11 or later",
                fix=f"install one there and name it: {self.address}?python=PATH",
            )
        if self.about["missing"]:
            raise MissingDeviceError(
                f"the Python of {self.address} lacks packages",
                got=f"no {', '.join(self.about['missing'])}",
                expected="numpy, cv2, pydantic and a runtime",
                fix=f"there: {self.address.python} -m pip install numpy opencv-python-headless pydantic",
            )

    def _check_room(self, needed: int) -> None:
        free = self.about["free_bytes"]
        if needed > free:
            raise MissingDeviceError(
                f"{self.address} has no room",
                got=f"{free / 1e6:.0f} MB free",
                expected=f"{needed / 1e6:.0f} MB, and some for what is computed",
                fix="remove something there, send fewer images, or set XDG_CACHE_HOME there to another disk",
            )


def _by_hand(address: Address) -> str:
    if address.transport == "adb":
        return f"adb -s {address.target} shell true"
    port = "" if address.port is None else f"-p {address.port} "
    return f"ssh {port}{address.target} true"
