"""Two processes against one with the doubled batch.

Compared: the losses of fifteen steps and the weights after them, with the statistics of batch normalisation
frozen, for each process otherwise normalises its own half of the batch. What is left is the order in which
floats are added.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from edgedet.models.checkpoint import read_state
from edgedet.training.config import read_train_config
from edgedet.training.history import EpochRecord
from edgedet.training.state import load_state


def run(
    config: Path, output: Path, processes: int
) -> tuple[tuple[EpochRecord, ...], dict[str, torch.Tensor]]:
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
    ]
    command = [*launcher, "-m", "edgedet", "train", str(config), "--output", str(output)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=500, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return load_state(output, read_train_config(config)).history, read_state(output / "tiny.safetensors")


def test_two_processes_learn_what_one_learns_with_the_doubled_batch(tiny_config, tmp_path: Path):
    frozen = {"amp = false": "amp = false\nfreeze_norm = true", "batch_size = 8": "batch_size = 20"}
    one, expected = run(tiny_config(frozen), tmp_path / "one", processes=1)
    frozen["batch_size = 8"] = "batch_size = 10"
    two, found = run(tiny_config(frozen), tmp_path / "two", processes=2)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(b.loss, a.loss, rtol=1e-4, atol=0)
    assert one[0].loss > one[-1].loss
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        torch.testing.assert_close(
            found[key], value, rtol=1e-3, atol=1e-4, msg=lambda text, key=key: f"{key}: {text}"
        )
