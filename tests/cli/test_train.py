"""`edgedet train`: what is printed before, during and after a run, and when it is interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Command

CONFIG = """
epochs = 2
batch_size = 20
amp = false
evaluate_every = 1
{top}

[data]
path = "builtin"
train = "val"
evaluate = "val"

[detector]
name = "tiny"
labels = ["circle", "ring"]
input = {{ size_hw = [64, 64] }}
backbone = {{ name = "lcnet_035", out_strides = [16] }}
head = {{ extra_channels = [16], scales = [0.2, 0.5, 0.9] }}
"""


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    """Writes the configuration of a run that takes seconds, with a line of its own."""

    def write(top: str = "") -> Path:
        path = tmp_path / "tiny.toml"
        path.write_text(CONFIG.format(top=top))
        return path

    return write


def test_a_run_prints_its_start_its_epochs_and_its_end(
    edgedet: Command, config: Callable[..., Path], tmp_path: Path
) -> None:
    run, file = tmp_path / "run", tmp_path / "values.json"
    result = edgedet("train", config(), "--output", run, "--json", file)
    assert result.code == 0, result.stderr
    first, *epochs, accuracy, wrote = result.stdout.splitlines()
    assert first.startswith("training on builtin val (100 images)")
    assert first.endswith(f"2 classes: circle, ring; 2 epochs from random weights; writing {run}")
    assert [line.split(":")[0] for line in epochs] == ["epoch 1", "epoch 2"]
    values = json.loads(file.read_text())
    points = f"mAP {100 * values['accuracy']['map']:.2f}, mAP50 {100 * values['accuracy']['map50']:.2f}"
    assert accuracy == points
    assert epochs[1].endswith(points)
    assert wrote == f"wrote {run / 'tiny.safetensors'}"
    assert (values["start"]["folder"], values["start"]["labels"]) == (str(run), ["circle", "ring"])


@pytest.mark.parametrize("interrupted_in", [1, 2])
def test_an_interrupted_run_tells_how_to_go_on_where_something_was_saved(
    edgedet: Command,
    config: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupted_in: int,
) -> None:
    from edgedet.training.loop import Trainer

    run_epoch = Trainer.run_epoch

    def interrupt(self: Trainer, epoch: int, batches: object) -> object:
        if epoch + 1 == interrupted_in:
            raise KeyboardInterrupt
        return run_epoch(self, epoch, batches)

    path, run = config("workers = 0"), tmp_path / "run"
    monkeypatch.setattr(Trainer, "run_epoch", interrupt)
    result = edgedet("train", path, "--output", run)
    assert result.code == 130
    hint = f"edgedet: 1 of 2 epochs are saved in {run}; the same command with --resume goes on\n"
    assert result.notices == (hint if interrupted_in == 2 else "") + "edgedet: interrupted\n"
    monkeypatch.setattr(Trainer, "run_epoch", run_epoch)
    if interrupted_in == 2:
        resumed = edgedet("train", path, "--output", run, "--resume")
        assert resumed.code == 0, resumed.stderr
        assert f"2 epochs after 1 from the state in {run}" in resumed.stdout
