"""How long OpenMP threads should wait busily, alone and where another process has one of the cores.

    python benchmarks/shared_cores.py CHECKPOINT

Times one inference and one training step of a detector in PyTorch, on all cores, for several values of
`GOMP_SPINCOUNT` and on one thread: first alone, then beside a process that keeps one core busy. Printed are
medians in milliseconds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from edgedet.environment import read_environment
from edgedet.models.checkpoint import load_checkpoint

SETTINGS: dict[str, dict[str, str]] = {
    "default": {},
    "GOMP_SPINCOUNT=300000": {"GOMP_SPINCOUNT": "300000"},
    "GOMP_SPINCOUNT=30000": {"GOMP_SPINCOUNT": "30000"},
    "GOMP_SPINCOUNT=3000": {"GOMP_SPINCOUNT": "3000"},
    "GOMP_SPINCOUNT=300": {"GOMP_SPINCOUNT": "300"},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}
SECONDS = 8.0
BATCH = 8


def milliseconds(step: Callable[[], object]) -> float:
    """The median time of a step, without the first ones."""
    for _ in range(2):
        step()
    times: list[float] = []
    while sum(times) < SECONDS:
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return 1e3 * median(times)


def measured(checkpoint: Path) -> None:
    """Print both times in this process."""
    detector = load_checkpoint(checkpoint).eval()
    height, width = detector.spec().input.size_hw
    image, images = torch.rand(1, 3, height, width), torch.rand(BATCH, 3, height, width)
    with torch.inference_mode():
        inference = milliseconds(lambda: detector(image))
    detector.train()
    training = milliseconds(lambda: sum(one.square().mean() for one in detector(images)).backward())
    print(f"{inference:.0f} {training:.0f}")


@contextmanager
def busy_core(wanted: bool) -> Iterator[None]:
    """A process beside this one that computes all the time."""
    if not wanted:
        yield
        return
    # In a session of its own, as another user or service would have: schedulers share cores among sessions.
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--measured", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measured:
        measured(given.checkpoint)
        return
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    print(f"{read_environment().cpu}, {os.cpu_count()} cores; milliseconds")
    print(f"{'':26}{'inference':>12}{'training':>12}{'inference':>12}{'training':>12}")
    print(f"{'':26}{'alone':>12}{'alone':>12}{'beside one':>12}{'beside one':>12}")
    for name, setting in SETTINGS.items():
        row = []
        for beside in (False, True):
            with busy_core(beside):
                words = [sys.executable, __file__, str(given.checkpoint), "--measured"]
                run = subprocess.run(words, env=kept | setting, stdout=subprocess.PIPE, text=True, check=True)
            row += run.stdout.split()[-2:]
        print(f"{name:26}" + "".join(f"{value:>12}" for value in row), flush=True)


if __name__ == "__main__":
    main()
