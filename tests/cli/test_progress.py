"""Work that takes long says so: in bars on a terminal, in lines elsewhere, and in a log."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from edgedet.cli import progress
from edgedet.cli.progress import Bars
from edgedet.errors import UsageError


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of the time until something is said."""
    for name, seconds in {"_DELAY_S": 0.02, "_SHOWN_S": 0.01, "_SILENCE_S": 0.08, "_TICK_S": 0.005}.items():
        monkeypatch.setattr(progress, name, seconds)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def wait_for(text: str, read: Callable[[], str]) -> None:
    """Work until something is said."""
    deadline = time.monotonic() + 60
    while text not in read():
        assert time.monotonic() < deadline, f"{text!r} is not in {read()!r}"
        time.sleep(0.01)


def lines_of(text: str) -> list[str]:
    """Of stages: without the seconds that begin each line and those within, and what is between stages."""
    return [line for line in all_lines_of(text) if line != "still working"]


def all_lines_of(text: str) -> list[str]:
    lines = [re.sub(r"^\[ *\d+\.\d s\] ", "", line) for line in text.splitlines()]
    assert all(line != whole for line, whole in zip(lines, text.splitlines(), strict=True)), text
    return [re.sub(r"\d+(\.\d)? s\b", "N s", line) for line in lines]


def test_a_stage_is_announced_counted_and_timed_where_there_is_no_terminal(stream: io.StringIO) -> None:
    with Bars(Console(file=stream)) as bars:
        for number in bars(range(3), "Comparing"):
            for text in ("Comparing 0/3 ...", f"Comparing {number}/3 ("):
                wait_for(text, stream.getvalue)
    *lines, last = lines_of(stream.getvalue())
    assert lines.count("Comparing 0/3 ...") == 1
    assert {*lines} - {"Comparing 0/3 ..."} == {f"Comparing {number}/3 (N s)" for number in range(3)}
    assert last == "Comparing 3/3: done in N s"


def test_a_call_that_counts_nothing_is_heard_of_too_and_so_is_the_time_between(stream: io.StringIO) -> None:
    with Bars(Console(file=stream)) as bars:
        with bars.step("Making artifacts"):
            for _ in bars(["onnx"], "onnx fp32", 1):
                wait_for("onnx fp32 0/1 (", stream.getvalue)
        said = stream.getvalue()
        wait_for("still working", lambda: stream.getvalue().removeprefix(said))
    lines = all_lines_of(stream.getvalue())
    assert "Making artifacts, onnx fp32 0/1 (N s)" in lines
    assert "still working" in lines[lines.index("Making artifacts: done in N s") :]


def test_a_stage_that_takes_no_time_says_nothing(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_DELAY_S", "_SHOWN_S", "_SILENCE_S"):
        monkeypatch.setattr(progress, name, 60.0)
    with Bars(Console(file=stream)) as bars:
        assert list(bars(range(3), "Comparing")) == [0, 1, 2]
    assert stream.getvalue() == ""


def test_a_stage_that_was_left_early_is_not_called_done(stream: io.StringIO) -> None:
    with suppress(ZeroDivisionError), Bars(Console(file=stream)) as bars:
        for number in bars(range(2), "Comparing"):
            time.sleep(0.05)
            1 / (1 - number)
    assert lines_of(stream.getvalue())[-1] == "Comparing 1/2: ended in N s"


def test_a_stage_that_nobody_closed_is_no_fault_when_all_has_ended(stream: io.StringIO) -> None:
    with Bars(Console(file=stream)) as bars:
        left = bars(range(9), "Measuring")
        next(left)
        wait_for("Measuring 0/9", stream.getvalue)
    said = stream.getvalue()
    left.close()
    assert stream.getvalue() == said


def test_a_terminal_gets_bars_and_the_seconds_of_what_is_done(stream: io.StringIO) -> None:
    with Bars(Console(file=stream, force_terminal=True, width=80)) as bars:
        for _ in bars(range(2), "Comparing"):
            wait_for("━", stream.getvalue)
    text = stream.getvalue()
    assert re.search(r"\[ *\d+\.\d s\] Comparing 2/2: done in \d+\.\d s", text)
    assert "..." not in text


def test_a_log_has_the_same_lines_and_what_is_said_between(stream: io.StringIO, tmp_path: Path) -> None:
    log = tmp_path / "new" / "log.txt"
    with Bars(Console(file=stream), log) as bars:
        bars.say("7 measurements of at least 2 s each")
        for _ in bars(range(2), "Measuring"):
            wait_for("Measuring", stream.getvalue)
        assert "] 7 measurements" in log.read_text(), "while it runs"
    shown, logged = stream.getvalue().splitlines(), log.read_text().splitlines()
    shown.remove("edgedet: 7 measurements of at least 2 s each")
    logged = [line for line in logged if not line.endswith("] 7 measurements of at least 2 s each")]
    assert shown == logged
    assert lines_of(log.read_text())[0] == "7 measurements of at least N s each"
    assert lines_of(log.read_text())[-1] == "Measuring 2/2: done in N s"


def test_a_log_on_a_terminal_says_what_is_under_way_too(stream: io.StringIO, tmp_path: Path) -> None:
    with (
        Bars(Console(file=stream, force_terminal=True), tmp_path / "log.txt") as bars,
        bars.step("Converting"),
    ):
        for text in ("Converting ...", "Converting ("):
            wait_for(text, (tmp_path / "log.txt").read_text)
    lines = lines_of((tmp_path / "log.txt").read_text())
    assert {*lines} == {"Converting ...", "Converting (N s)", "Converting: done in N s"}


def test_a_log_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folder"):
        Bars(log=tmp_path)


def test_lines_come_through_while_a_converter_has_the_process_own_output(tmp_path: Path) -> None:
    program = """
import os, time
from edgedet.cli import progress
progress._DELAY_S = progress._TICK_S = 0.01
with progress.Bars() as bars, bars.step("Converting"):
    saved = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    time.sleep(0.3)
    os.dup2(saved, 2)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "Converting ..." in lines_of(done.stderr)
    assert lines_of(done.stderr)[-1] == "Converting: done in N s"
