from __future__ import annotations

import csv
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edgedet.data import open_dataset
from edgedet.errors import DataError, UsageError
from edgedet.models.checkpoint import load_checkpoint, read_info, read_state
from edgedet.progress import silent
from edgedet.training.config import TrainConfig, read_train_config
from edgedet.training.distributed import Group
from edgedet.training.state import Origin, check_origin, load_state
from edgedet.training.train import TrainingResult, train


def interrupt_in_epoch(number: int):
    """A track that is interrupted as by Ctrl-C in the middle of an epoch."""

    def track(items, description, total=None):
        for position, item in enumerate(silent(items, description, total)):
            if description.startswith(f"Epoch {number}/") and position == 3:
                raise KeyboardInterrupt
            yield item

    return track


@pytest.fixture(scope="module")
def whole(tiny_config, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train(tiny_config(), output=tmp_path_factory.mktemp("runs") / "whole")


def test_an_interrupted_run_resumes_to_the_weights_of_an_uninterrupted_one(
    whole: TrainingResult, tiny_config, tmp_path: Path
):
    config = tiny_config()
    with pytest.raises(KeyboardInterrupt):
        train(config, output=tmp_path / "parts", track=interrupt_in_epoch(2))
    assert not (tmp_path / "parts" / "tiny.safetensors").exists()
    parts = train(config, output=tmp_path / "parts", resume=True)
    expected, found = read_state(whole.checkpoint), read_state(parts.checkpoint)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert [r.loss for r in whole.history] == [r.loss for r in parts.history]


def test_a_run_learns(whole: TrainingResult):
    assert whole.history[-1].class_loss < 0.85 * whole.history[0].class_loss


def test_a_checkpoint_says_how_it_was_made(whole: TrainingResult):
    info = read_info(whole.checkpoint)
    assert "builtin val: 100 images" in info.data
    assert TrainConfig.model_validate_json(info.training).seed == 3
    assert torch.__version__.startswith(info.tools["torch"])
    assert load_checkpoint(whole.checkpoint).spec().labels[0] == "circle"


def test_a_run_writes_a_log_and_a_plot(whole: TrainingResult):
    folder = whole.checkpoint.parent
    rows = list(csv.DictReader((folder / "log.csv").open()))
    assert [float(row["loss"]) for row in rows] == [record.loss for record in whole.history]
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_with_a_run_is_not_overwritten(whole: TrainingResult, tiny_config):
    with pytest.raises(UsageError, match="holds another run"):
        train(tiny_config(), output=whole.checkpoint.parent)


def test_a_run_is_not_resumed_with_another_configuration(whole: TrainingResult, tiny_config):
    with pytest.raises(UsageError, match="different seed"):
        train(tiny_config({"seed = 3": "seed = 4"}), output=whole.checkpoint.parent, resume=True)


def test_a_run_is_not_resumed_on_other_images(whole: TrainingResult, tiny_config, tmp_path: Path):
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((8, 8, 3), np.uint8))
    config = tiny_config({'train = "val"': 'train = ""'})
    with pytest.raises(UsageError, match=r"different data\.train;"):
        train(config, output=whole.checkpoint.parent, resume=True)
    state = load_state(whole.checkpoint.parent, read_train_config(tiny_config()))
    with pytest.raises(UsageError, match=r"other images.*got 2 images.*expected 100 images"):
        check_origin(state.origin, Origin.of(open_dataset(tmp_path), 1), tmp_path)
    renamed = state.origin.model_copy(update={"image_ids_sha256": "0" * 64})
    with pytest.raises(UsageError, match="other images"):
        check_origin(state.origin, renamed, tmp_path)


def test_a_run_is_not_resumed_in_another_number_of_processes(
    whole: TrainingResult, tiny_config, monkeypatch: pytest.MonkeyPatch
):
    @contextmanager
    def two_processes():
        yield Group(rank=0, size=2)

    monkeypatch.setattr("edgedet.training.train.process_group", two_processes)
    with pytest.raises(UsageError, match=r"number of processes; got 2; expected 1\."):
        train(tiny_config(), output=whole.checkpoint.parent, resume=True)


def test_a_run_resumes_where_its_images_lie_now(whole: TrainingResult, tiny_config):
    moved = tiny_config({'path = "builtin"': 'path = "elsewhere"\ncache = false'})
    parts = train(moved, data="builtin", output=whole.checkpoint.parent, resume=True)
    assert parts.history == whole.history


def test_resuming_nothing_is_refused(tiny_config, tmp_path: Path):
    with pytest.raises(UsageError, match="no run to resume"):
        train(tiny_config(), output=tmp_path / "none", resume=True)


def test_a_missing_data_set_is_named(tiny_config, tmp_path: Path):
    with pytest.raises(DataError, match="nowhere"):
        train(tiny_config(), data=tmp_path / "nowhere", output=tmp_path / "run")
