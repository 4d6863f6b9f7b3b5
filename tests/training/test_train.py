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
from edgedet.training.history import EpochRecord, write_plot
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
    assert {"map_fraction", "map50_fraction"} <= set(rows[0]), "print has points, the log fractions"
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_with_a_run_is_not_overwritten(whole: TrainingResult, tiny_config):
    with pytest.raises(UsageError, match=r"holds a run already; .*--resume goes on with it"):
        train(tiny_config(), output=whole.checkpoint.parent)


def test_a_checkpoint_of_that_name_is_not_overwritten(tiny_config, tmp_path: Path):
    (tmp_path / "tiny.safetensors").write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"got a file tiny\.safetensors"):
        train(tiny_config(), data="nowhere", output=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.safetensors"]
    (tmp_path / "tiny.safetensors").rename(tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="nowhere"):
        train(tiny_config(), data="nowhere", output=tmp_path)


def write_yolo(root: Path, rows: dict[str, str]) -> Path:
    """Splits of eight images, each with the same rows; classes circle, ring and dog."""
    for split, text in rows.items():
        for number in range(8):
            for kind in ("images", "labels"):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
            image = np.full((64, 64, 3), 20 * number, np.uint8)
            cv2.imwrite(str(root / "images" / split / f"{number}.png"), image)
            (root / "labels" / split / f"{number}.txt").write_text(text)
    (root / "classes.txt").write_text("circle\nring\ndog\n")
    return root


ONE_EPOCH = {
    "epochs = 3": "epochs = 1",
    'train = "val"': 'train = "train"',
    'evaluate = ""': 'evaluate = "val"',
}


def test_a_run_says_what_it_is_about_to_do_before_its_first_epoch(tiny_config, tmp_path: Path):
    circle, dogs = "0 0.5 0.5 0.5 0.5\n", "2 0.5 0.5 0.4 0.4\n" * 3
    data = write_yolo(tmp_path / "photos", {"train": circle + dogs, "val": circle})
    told: list[object] = []
    train(tiny_config(ONE_EPOCH), data, tmp_path / "run", started=told.append, report=told.append)
    start, epoch = told
    assert str(start) == (
        "training on photos train (8 images, 8 boxes), measuring on val (8 images, 8 boxes); "
        "8 classes: circle, crescent, cross, heart, ring, square, star, triangle; "
        f"1 epochs from random weights; writing {tmp_path / 'run'}"
    )
    assert start.left_out_lines == (
        "train: 8 of 32 boxes are of the detector's 8 classes; 24 of 1 other classes are left out: dog",
    )
    assert epoch.epoch == 1


def test_a_run_names_what_it_cannot_learn_from(tiny_config, tmp_path: Path):
    circle = "0 0.5 0.5 0.5 0.5\n"
    data = write_yolo(tmp_path / "photos", {"train": circle, "val": circle})
    (data / "labels" / "train" / "3.txt").write_text("0 0.5 0.5 nothing 0.5\n" + circle)
    (data / "labels" / "train" / "5.txt").write_text("0 0.5 0.5 0.5 0.5 0.93\n")
    (data / "images" / "train" / "4.png").write_bytes(b"no image")
    told: list[object] = []
    train(tiny_config(ONE_EPOCH), data, tmp_path / "run", started=told.append)
    line, corrected = told[0].left_out_lines
    assert corrected.startswith("train: corrected: 1 × row with a confidence")
    assert line.startswith("train: left out: 1 × ")
    assert "3.txt" in line
    assert "4.png" in line


@pytest.mark.parametrize(("side", "warned"), [(0.5, False), (0.01, True)])
def test_a_run_warns_of_objects_that_its_input_does_not_show(tiny_config, tmp_path: Path, side, warned: bool):
    row = f"0 0.5 0.5 {side} 0.5\n"
    data = write_yolo(tmp_path / "photos", {"train": row, "val": row})
    told: list[object] = []
    train(tiny_config(ONE_EPOCH), data, tmp_path / "run", started=told.append)
    assert [one.startswith("8 of 8 boxes are narrower") for one in told[0].warnings] == [True] * warned


def test_one_image_at_a_time_is_refused_where_its_maps_have_one_position(tiny_config, tmp_path: Path):
    lonely = {"epochs = 3": "epochs = 1", "batch_size = 8": "batch_size = 1", "[96, 96]": "[32, 32]"}
    with pytest.raises(DataError, match=r"one image at a time; .*batch_size to 2 .* freeze_norm = true"):
        train(tiny_config(lonely), output=tmp_path / "run")
    lonely["amp = false"] = "amp = false\nfreeze_norm = true"
    train(tiny_config(lonely), output=tmp_path / "frozen")


def test_a_run_does_not_learn_from_less_than_half_of_its_images(tiny_config, tmp_path: Path):
    circle = "0 0.5 0.5 0.5 0.5\n"
    data = write_yolo(tmp_path / "photos", {"train": circle, "val": circle})
    for number in range(5):
        (data / "images" / "train" / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"most images of .* cannot be used; got 5 lost, 3 left"):
        train(tiny_config(ONE_EPOCH), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_says_what_weights_it_starts_from_and_where_it_goes_on(
    whole: TrainingResult, tiny_config, tmp_path: Path
):
    starts: list[object] = []
    config = tiny_config({"epochs = 3": "epochs = 1"})
    train(config, output=tmp_path / "next", weights=whole.checkpoint, started=starts.append)
    train(tiny_config(), output=whole.checkpoint.parent, resume=True, started=starts.append)
    assert f"1 epochs from {whole.checkpoint} (backbone and head); writing" in str(starts[0])
    assert f"3 epochs after 3 from the state in {whole.checkpoint.parent};" in str(starts[1])
    assert "val (100 images), measuring on nothing; 8 classes" in str(starts[0]), (
        "drawn later, not yet counted"
    )


@pytest.mark.parametrize(("rows", "got"), [("2 0.5 0.5 0.4 0.4\n", "boxes of dog only"), ("", "no boxes")])
def test_there_must_be_a_box_of_the_classes_of_the_detector(tiny_config, tmp_path: Path, rows: str, got: str):
    data = write_yolo(tmp_path / "photos", {"train": rows, "val": rows})
    with pytest.raises(DataError, match=f"nothing to learn from .*; got {got}.*expected boxes of circle"):
        train(tiny_config(ONE_EPOCH), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_epoch_is_printed_in_points_as_everything_else_is():
    record = EpochRecord(
        epoch=1, loss=3, box_loss=1, class_loss=2, learning_rate=1e-3, seconds=2, map=0.12345, map50=0.0001
    )
    assert str(record).endswith(", mAP 12.35, mAP50 0.01")


def test_the_plot_of_a_single_epoch_is_no_empty_chart(tmp_path: Path):
    record = EpochRecord(epoch=1, loss=3, box_loss=1, class_loss=2, learning_rate=1e-3, seconds=2, map=0.5)
    write_plot(tmp_path / "plot.png", [record])
    picture = cv2.imread(str(tmp_path / "plot.png")).astype(int)
    blue, green, red = picture[..., 0], picture[..., 1], picture[..., 2]
    # the chart is the inner part; the legend and its samples lie above it
    inner = np.zeros(blue.shape, bool)
    inner[80:-80, 80:-80] = True
    assert ((blue - red > 100) & inner).any(), "the loss"
    assert ((red - blue > 100) & (green > 80) & inner).any(), "mAP"


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
