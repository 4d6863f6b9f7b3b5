"""PyTorch's threads leave their cores to other processes while they wait."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def spins(**environment: str) -> str:
    """What OpenMP says, as PyTorch loads it behind a command, of how long its threads wait busily."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    run = subprocess.run(
        [sys.executable, "-c", "from edgedet.cli import main; main(['models']); import torch"],
        env=kept | environment | {"OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split("'")[1] for line in run.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    if not lines:
        pytest.skip("PyTorch has no GNU OpenMP here")
    return lines[-1]


def test_threads_that_wait_soon_sleep() -> None:
    assert spins() == "3000"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
)
def test_what_the_user_has_set_stays(environment: dict[str, str], expected: str) -> None:
    assert spins(**environment) == expected
