"""Runs a command in this process, as a shell would see it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import pytest

from edgedet.cli import main


@dataclass(frozen=True, slots=True)
class Result:
    """What a shell sees of a command."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Standard output as JSON; fails where anything else is there."""
        return json.loads(self.stdout)

    @property
    def notices(self) -> str:
        """Standard error without its lines of progress, which depend on how fast this machine is."""
        return re.sub(r"^\[ *\d+\.\d s\] .*\n", "", self.stderr, flags=re.MULTILINE)


class Command:
    """Calls `edgedet` with arguments.

    Args:
        capsys: pytest's capture of standard output and standard error.
    """

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Result:
        self._capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        return Result(code, captured.out, captured.err)


def check_refusal(result: Result, code: int, *words: str) -> None:
    """A refusal is one paragraph on standard error: what was got, what was expected, what to do."""
    assert result.code == code, result
    lines = [line for line in result.stderr.splitlines() if line.startswith("edgedet: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert re.search(r"; got .+; expected .+\. Fix: .+", lines[0]), lines[0]
    for word in words:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"
