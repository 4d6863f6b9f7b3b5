"""Two processes against one with the doubled batch.

Compared: the losses of fifteen steps and the weights after them, with the statistics of batch normalisation
frozen, for each process otherwise normalises its own half of the batch. What is left is the order in which
floats are added, which AdamW magnifies where gradients are near zero: weights are compared by how far apart
they are against how far they moved.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgedet.data.synthetic import SyntheticDataset
from edgedet.models.checkpoint import read_state, save_checkpoint
from edgedet.models.detector import build_detector
from edgedet.training.config import read_train_config
from edgedet.training.dataset import TrainingSamples
from edgedet.training.state import load_state
from edgedet.training.train import train


def start_weights(config: Path, path: Path) -> Path:
    """Weights whose frozen statistics fit real images, so that signals and gradients are of a usual size."""
    torch.manual_seed(0)
    settings = read_train_config(config)
    detector = build_detector(settings.detector)
    samples = TrainingSamples(SyntheticDataset("val", size=16), detector.spec(), settings.augmentation)
    with torch.no_grad():
        for _ in range(60):
            detector(samples.plain_images(16))
    save_checkpoint(path, detector)
    return path


def train_in_processes(number: int, config: Path, weights: Path, output: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={number}"]
    options = ["--weights", str(weights), "--output", str(output)]
    done = subprocess.run(
        [*launcher, "-m", "edgedet", "train", str(config), *options],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]


def length(tensors: dict[str, torch.Tensor]) -> float:
    return torch.cat([tensor.flatten() for tensor in tensors.values()]).norm().item()


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_with_the_doubled_batch(tiny_config, tmp_path: Path):
    frozen = {"amp = false": "amp = false\nfreeze_norm = true", "batch_size = 8": "batch_size = 20"}
    config = tiny_config(frozen)
    weights = start_weights(config, tmp_path / "start.safetensors")
    one = train(config, output=tmp_path / "one", weights=weights)
    frozen["batch_size = 8"] = "batch_size = 10"
    config = tiny_config(frozen)
    train_in_processes(2, config, weights, tmp_path / "two")
    history = load_state(tmp_path / "two", read_train_config(config)).history
    for a, b in zip(one.history, history, strict=True):
        torch.testing.assert_close(b.loss, a.loss, rtol=1e-4, atol=0)
    assert history[-1].class_loss < 0.99 * history[0].class_loss
    expected, found = read_state(one.checkpoint), read_state(tmp_path / "two" / "tiny.safetensors")
    start = read_state(weights)
    moved = {key: value - start[key] for key, value in expected.items() if value.is_floating_point()}
    apart = {key: found[key] - expected[key] for key in moved}
    assert length(apart) < 0.1 * length(moved)
