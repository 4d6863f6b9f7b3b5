"""A headless Chromium that opens a page and tells what a reader would see.

It is driven over the pipe of the DevTools protocol (https://chromedevtools.github.io/devtools-protocol), JSON
that ends with a zero byte, read from descriptor 3 and written to 4: nothing but the browser is needed.
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 60.0

PHONE, DESK = (390, 844), (1280, 900)


def find_browser() -> str | None:
    """The first of the names that this machine has."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one page did while it was opened, and what is on it.

    Attributes:
        errors: What the console would show in red: exceptions, errors, what a policy refused.
        requests: Addresses that were asked for, data: left out, as the page itself is.
        values: What the expressions gave, by name.
        screenshot: PNG of the first screen.
    """

    errors: tuple[str, ...]
    requests: tuple[str, ...]
    values: dict[str, Any]
    screenshot: bytes


class Browser:
    """One Chromium; a context manager."""

    def __init__(self, path: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # Above 9, so that neither is overwritten before it was copied.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser, from_browser)]
        self._process = subprocess.Popen(
            [
                path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--no-first-run", "--disable-background-networking", "--remote-debugging-pipe",
                "--hide-scrollbars",
                f"--user-data-dir={self._folder.name}", "about:blank",
            ],
            pass_fds=(3, 4, *ends),
            preexec_fn=lambda: [os.dup2(end, number) for number, end in enumerate(ends, 3)] and None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (to_browser, from_browser, *ends):
            os.close(end)
        self._numbers, self._rest, self._events = itertools.count(1), b"", list[dict[str, Any]]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(SECONDS)
        for end in (self._read, self._write):
            os.close(end)
        self._folder.cleanup()

    def open(self, page: Path, size: tuple[int, int], expressions: dict[str, str]) -> Seen:
        """Open a page in a tab of its own and evaluate expressions once it has loaded.

        Args:
            page: The file.
            size: Width and height of the screen in CSS pixels; narrow ones are a phone's.
            expressions: JavaScript by name, each of a value that JSON can hold.
        """
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable", session)
        self._call(
            "Emulation.setDeviceMetricsOverride",
            session, width=size[0], height=size[1], deviceScaleFactor=1, mobile=size[0] < 600,
        )  # fmt: skip
        self._events.clear()
        self._call("Page.navigate", session, url=page.resolve().as_uri())
        self._wait_for("Page.loadEventFired")
        values = {name: self._evaluate(session, code) for name, code in expressions.items()}
        image = self._call("Page.captureScreenshot", session)["data"]
        self._call("Target.closeTarget", targetId=target)
        return Seen(
            errors=tuple(filter(None, map(_error, self._events))),
            requests=tuple(
                event["params"]["request"]["url"]
                for event in self._events
                if event.get("method") == "Network.requestWillBeSent"
                and not event["params"]["request"]["url"].startswith("data:")
            ),
            values=values,
            screenshot=base64.b64decode(image),
        )

    def _evaluate(self, session: str, code: str) -> Any:
        found = self._call(
            "Runtime.evaluate", session, expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def _call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda one: one.get("id") == number)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _wait_for(self, method: str) -> None:
        if not any(event.get("method") == method for event in self._events):
            self._until(lambda one: one.get("method") == method)

    def _until(self, wanted: Any) -> dict[str, Any]:
        """Read messages until one is wanted; events on the way are kept."""
        deadline = time.monotonic() + SECONDS
        while True:
            while b"\0" in self._rest:
                text, self._rest = self._rest.split(b"\0", 1)
                message = json.loads(text)
                if "method" in message:
                    self._events.append(message)
                if wanted(message):
                    return message
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._read, 1 << 16) if ready else b""
            if not data:
                raise TimeoutError(f"the browser gave no answer; it ended with {self._process.poll()}")
            self._rest += data


def _error(event: dict[str, Any]) -> str:
    parameters = event.get("params", {})
    match event.get("method"):
        case "Runtime.exceptionThrown":
            return str(parameters["exceptionDetails"])
        case "Runtime.consoleAPICalled" if parameters["type"] in {"error", "assert"}:
            return str(parameters["args"])
        case "Log.entryAdded" if parameters["entry"]["level"] == "error":
            return str(parameters["entry"]["text"])
    return ""
