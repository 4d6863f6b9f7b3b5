"""A signal ends a command wherever it strikes."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# A command that ends itself in a place where Python drops exceptions, and then waits.
PROGRAM = """
import gc, os, signal, sys, time
from edgedet import cli

# A shell ignores it for what it starts in the background, which the command line respects.
signal.signal(signal.SIGINT, signal.default_int_handler)

def strike(*_):
    if not struck:
        struck.append(True)
        os.kill(os.getpid(), {number})
        time.sleep(0)

class Finalized:
    def __del__(self):
        strike()

def run(**_):
    {strike}
    time.sleep(20)

struck = []
cli.app.command("wait")(lambda: run())
sys.exit(cli.main(["wait"]))
"""


@pytest.mark.parametrize(
    "strike",
    ["strike()", "Finalized()", "gc.callbacks.append(strike); gc.collect()"],
    ids=["in the open", "in a finalizer", "in a callback of the garbage collector"],
)
@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_command_ends_wherever_the_signal_comes(
    strike: str, number: signal.Signals, code: int, word: str
) -> None:
    program = PROGRAM.replace("{strike}", strike).replace("{number}", str(int(number)))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=15, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (code, f"edgedet: {word}")
