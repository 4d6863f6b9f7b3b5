"""One connection to the agent of a device."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from edgedet import registry
from edgedet.devices import agent, keeper
from edgedet.devices.address import Address
from edgedet.devices.transport import Transport
from edgedet.errors import EdgedetError, MissingDeviceError

# Reads the program from standard input and runs it, so that no command line grows long.
_BOOT = (
    "import sys;s=sys.stdin.buffer;t=s.read(int(s.readline()));"
    "exec(compile(t,'agent.py','exec'),{'__name__':'__main__'})"
)
# The agent there imports the keeper by the name that it has here.
_PROGRAM = """import sys, types
keeper = types.ModuleType({name!r})
keeper.SOURCE = {keeper!r}
exec(compile(keeper.SOURCE, "keeper.py", "exec"), vars(keeper))
sys.modules[keeper.__name__] = keeper
exec(compile({agent!r}, "agent.py", "exec"), {{"__name__": "__main__"}})
"""
# So much may a shell on the device print before the agent speaks.
_MOST_NOISE = 65_536
# So often in the time of a lease does a host say that it is there; the agent answers.
_HEARTBEATS = 10
# A connection through which nothing comes for so long is lost: adb waits for ever for a dead cable.
_SILENCE_S = 60.0
_CLOSE_LIMIT_S = 5.0


class ConnectionLostError(Exception):
    """The connection has ended, or could not be made; the words are what its program said."""


@cache
def agent_source() -> bytes:
    """The program that runs on the device: one text of two modules."""
    texts = {"keeper": Path(keeper.__file__).read_bytes(), "agent": Path(agent.__file__).read_bytes()}
    return _PROGRAM.format(name=keeper.__name__, **texts).encode()


class Connection:
    """A running agent. Requests may come from one thread only; a second one keeps the connection alive.

    Args:
        address: Where.
        hello: The first request: the session, and how long it is kept.
        reached: Whether the device was reached before, so that it may come back.

    Attributes:
        about: What the agent says of itself and its machine.

    Raises:
        MissingDeviceError: There is no way to the device that would open by waiting.
        ConnectionLostError: There may be one later.
    """

    def __init__(self, address: Address, hello: dict[str, Any], *, reached: bool = False) -> None:
        self._address, self._reached = address, reached
        self._transport: Transport = registry.TRANSPORTS.load(address.transport)
        _check_program(self._transport.program)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._writing = threading.Lock()
        self._closed = threading.Event()
        self._waits = self._silent = False
        self._heard = 0.0
        self._process = subprocess.Popen(
            self._transport.command(address, [address.python, "-u", "-c", _BOOT]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,  # the terminal's Ctrl-C is for this process, which then says goodbye
        )
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            self._greet(hello)
            self.about = self._read()
        except BaseException:
            self.close()
            raise
        interval_s = min(hello["lease_s"] / _HEARTBEATS, _SILENCE_S / 5)
        threading.Thread(target=self._beat, args=(interval_s,), daemon=True).start()

    def ask(self, request: dict[str, Any], payload: bytes = b"") -> dict[str, Any]:
        """Send a request and read its answer.

        Raises:
            ConnectionLostError: The connection has ended.
            EdgedetError: The device could not do it.
        """
        self.send(request, payload)
        return self._read()

    def send(self, request: dict[str, Any], payload: bytes = b"") -> None:
        """Send what has no answer, or more than one."""
        assert self._process.stdin is not None
        try:
            with self._waiting(), self._writing:
                agent.write_frame(self._process.stdin, request, payload)  # type: ignore[arg-type]
        except (OSError, ValueError) as exc:
            raise self._lost() from exc

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """The next frame that is no answer to a heartbeat.

        Raises:
            ConnectionLostError: The connection has ended.
        """
        try:
            with self._waiting():
                while True:
                    frame, payload = agent.read_frame(self._read_bytes)
                    if "beat" not in frame:
                        return frame, payload
        except (EOFError, OSError, ValueError) as exc:
            raise self._lost() from exc

    def kill(self) -> None:
        """End the program here at once, so that who reads stops reading."""
        self._process.kill()

    def close(self) -> None:
        """End the program here; the agent there ends by itself."""
        self._closed.set()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError), self._writing:
            self._process.stdin.close()
        try:
            self._process.wait(_CLOSE_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._stderr.close()

    def _read_bytes(self, length: int) -> bytes:
        """So many bytes of what the agent writes, or as many as there are before its end."""
        assert self._process.stdout is not None
        data = bytearray()
        while len(data) < length:
            piece = self._process.stdout.read1(length - len(data))  # type: ignore[attr-defined]
            if not piece:
                break
            self._heard = time.monotonic()
            data += piece
        return bytes(data)

    def _read(self) -> dict[str, Any]:
        answer, _ = self.receive()
        if "failed" in answer:
            raise EdgedetError(
                f"{self._address} cannot do what it is asked for",
                got=answer["failed"],
                expected="room and permission to write",
                fix="free some of its disk, or set XDG_CACHE_HOME there to a folder that can be written",
            )
        return answer

    def _greet(self, hello: dict[str, Any]) -> None:
        source = agent_source()
        assert self._process.stdin is not None
        noise = b""
        with self._waiting():
            try:
                self._process.stdin.write(b"%d\n" % len(source) + source)
                agent.write_frame(self._process.stdin, hello)  # type: ignore[arg-type]
            except OSError as exc:
                raise self._lost() from exc
            while not noise.endswith(agent.GREETING):
                letter = self._read_bytes(1)
                noise += letter
                if not letter or len(noise) > _MOST_NOISE:
                    raise self._lost()

    def _beat(self, interval_s: float) -> None:
        assert self._process.stdin is not None
        while not self._closed.wait(interval_s):
            with contextlib.suppress(OSError, ValueError), self._writing:
                agent.write_frame(self._process.stdin, {"do": "stay"})  # type: ignore[arg-type]

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        """While this lasts, the agent has to say something within the limit."""
        self._heard, self._waits = time.monotonic(), True
        try:
            yield
        finally:
            self._waits = False

    def _watch(self) -> None:
        while not self._closed.wait(_SILENCE_S / 20):
            if self._waits and time.monotonic() - self._heard > _SILENCE_S:
                self._silent = True
                self.kill()

    def _lost(self) -> ConnectionLostError | MissingDeviceError:
        """What to raise: the program's last words tell whether to try again."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_LIMIT_S)
        if self._stderr.closed:
            return ConnectionLostError("it was closed")
        self._stderr.seek(0)
        lines = [" ".join(line.split()) for line in self._stderr.read().decode(errors="replace").splitlines()]
        said_at_length = " ".join(line for line in lines if line)
        words = said_at_length[-_SHOWN:]
        if self._silent:
            return ConnectionLostError(f"nothing came for {_SILENCE_S:g} s")
        if self._process.returncode == _NO_SUCH_PROGRAM and not self._reached:
            return MissingDeviceError(
                f"{self._address} has no Python at {self._address.python}",
                got=words,
                expected="Python 3.11 or later with numpy, opencv-python-headless, pydantic and a runtime",
                fix=f"install it there, or name it: {self._address}?python=PATH",
            )
        hopeless = {**self._transport.refused, **({} if self._reached else self._transport.unreachable)}
        for said, fix in hopeless.items():
            where = next((number for number, line in enumerate(lines) if said in line), None)
            if where is not None:  # the line before it says of what
                return MissingDeviceError(
                    f"cannot connect to {self._address}",
                    got=" ".join(lines[max(0, where - 1) : where + 1])[:_SHOWN],
                    expected="a device to run on",
                    fix=fix,
                )
        return ConnectionLostError(words)


# Characters of what a program said that an error repeats.
_SHOWN = 300
# Of POSIX shells.
_NO_SUCH_PROGRAM = 127


def _check_program(program: str) -> None:
    if program and shutil.which(program) is None:
        raise MissingDeviceError(
            f"cannot connect without {program}",
            got="no such program on this machine",
            expected=f"{program} on the PATH",
            fix=f"install it: {'openssh-client' if program == 'ssh' else program}",
        )
