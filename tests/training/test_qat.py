from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from edgedet.data import open_dataset
from edgedet.errors import CheckpointError, UsageError
from edgedet.models.capture import capture
from edgedet.models.checkpoint import load_checkpoint, read_info, read_ranges, read_state
from edgedet.preprocess import preprocess
from edgedet.progress import silent
from edgedet.training.config import read_train_config
from edgedet.training.train import TrainingResult, train
from edgedet_calibration.placement import place
from edgedet_calibration.qat import QuantizedDetector
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import Stats
from edgedet_export.exporter import ExportRequest, export_bundle

QAT = {"[optimizer]": "[qat]\nepochs = 2\nlearning_rate = 3e-3\nimages = 8\n\n[optimizer]"}


@pytest.fixture(scope="module")
def trained_in_float(tiny_config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config({"epochs = 3": "epochs = 1"})
    return train(config, output=tmp_path_factory.mktemp("float") / "run").checkpoint


@pytest.fixture(scope="module")
def quantized(
    trained_in_float: Path, tiny_config, tmp_path_factory: pytest.TempPathFactory
) -> TrainingResult:
    folder = tmp_path_factory.mktemp("quantized") / "run"
    return train(tiny_config(QAT), output=folder, weights=trained_in_float, quantized=True)


def test_its_checkpoint_is_a_detector_with_the_ranges_of_all_quantized_tensors(
    trained_in_float: Path, quantized: TrainingResult
):
    assert quantized.checkpoint.name == "tiny_qat.safetensors"
    detector = load_checkpoint(quantized.checkpoint)
    assert read_state(quantized.checkpoint).keys() == read_state(trained_in_float).keys()
    learned = read_ranges(quantized.checkpoint)
    assert learned is not None
    assert learned.pair_safe
    ranges = learned.tensors
    assert set(place(capture(detector).graph_module).ranges) <= set(ranges)
    assert all(low <= 0 <= high and low < high for low, high in ranges.values())
    assert read_ranges(trained_in_float) is None
    assert '"quantized":true' in read_info(quantized.checkpoint).training


def test_weights_and_ranges_are_learned_together(trained_in_float: Path, quantized: TrainingResult):
    before, after = read_state(trained_in_float), read_state(quantized.checkpoint)
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert any(key.startswith("backbone.") for key in moved)
    assert any(key.startswith("head.") for key in moved)
    assert not any("running_" in key for key in moved), "batch normalisation keeps its statistics"
    assert quantized.history[-1].class_loss < quantized.history[0].class_loss


def test_the_log_tells_what_is_learned_from_the_float_detector(quantized: TrainingResult):
    records = quantized.history
    assert all(record.distillation_loss > 0 for record in records)
    assert "distillation" in str(records[0])
    header, *rows = (quantized.checkpoint.parent / "log.csv").read_text().splitlines()
    column = header.split(",").index("distillation_loss")
    assert [float(row.split(",")[column]) for row in rows] == [one.distillation_loss for one in records]


@pytest.mark.slow
def test_its_integers_stay_nearer_to_the_float_detector_the_more_it_listens_to_it(
    trained_in_float: Path, tiny_config, tmp_path: Path
):
    teacher = load_checkpoint(trained_in_float).eval()
    data, spec = open_dataset("builtin", split="test"), teacher.spec()
    images = [preprocess(data[index].image_bgr, spec.input)[0] for index in range(24)]

    def distance(weight: int) -> float:
        learned = QAT["[optimizer]"].replace("images", f"distillation = {weight}\nimages")
        folder = tmp_path / str(weight)
        run = train(
            tiny_config({"[optimizer]": learned}), output=folder, weights=trained_in_float, quantized=True
        )
        integers = QuantizedDetector(
            load_checkpoint(run.checkpoint), read_ranges(run.checkpoint).tensors
        ).eval()
        with torch.no_grad():
            batch = torch.from_numpy(np.concatenate(images))
            (_, expected), (_, found) = teacher(batch), integers(batch)
        return float((found.softmax(2) - expected.softmax(2)).abs().mean())

    assert distance(30) < distance(1) < distance(0)


def test_a_run_that_an_earlier_version_rounded_at_other_scales_is_not_resumed(
    quantized: TrainingResult, tiny_config, tmp_path: Path
):
    shutil.copytree(quantized.checkpoint.parent, tmp_path / "run")
    state = tmp_path / "run" / "state.pt"
    document = torch.load(state, weights_only=True)
    assert document.pop("pair_safe") is True
    torch.save(document, state)
    with pytest.raises(UsageError, match="cannot be resumed by this version"):
        train(tiny_config(QAT), output=tmp_path / "run", quantized=True, resume=True)


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_weights_and_ranges_of_an_uninterrupted_one(
    trained_in_float: Path, quantized: TrainingResult, tiny_config, tmp_path: Path
):
    def interrupt(items, description, total=None):
        for position, item in enumerate(silent(items, description, total)):
            if description.startswith("Epoch 2/") and position == 3:
                raise KeyboardInterrupt
            yield item

    config = tiny_config(QAT)
    with pytest.raises(KeyboardInterrupt):
        train(config, output=tmp_path / "run", weights=trained_in_float, quantized=True, track=interrupt)
    parts = train(config, output=tmp_path / "run", quantized=True, resume=True)
    expected, found = read_state(quantized.checkpoint), read_state(parts.checkpoint)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert read_ranges(parts.checkpoint) == read_ranges(quantized.checkpoint)


@pytest.mark.parametrize("weights", [None, "pretrained"])
def test_it_needs_a_detector_that_was_trained_in_float(tiny_config, tmp_path: Path, weights: str | None):
    with pytest.raises(UsageError, match="train without --qat first, then pass its checkpoint"):
        train(tiny_config(QAT), output=tmp_path / "run", weights=weights, quantized=True)


def test_weights_of_another_detector_are_refused(trained: Path, tiny_config, tmp_path: Path):
    with pytest.raises(CheckpointError, match="do not fit the detector"):
        train(tiny_config(QAT), output=tmp_path / "run", weights=trained, quantized=True)


def test_the_file_can_ask_for_it_as_well_as_the_command_line(tiny_config):
    asked = read_train_config(tiny_config({"seed = 3": "seed = 3\nquantized = true"}))
    assert asked == read_train_config(tiny_config(), quantized=True)
    assert (asked.detector.name, asked.epochs, asked.optimizer.learning_rate) == ("tiny_qat", 10, 1e-4)
    assert read_train_config(tiny_config()).epochs == 3


@pytest.mark.slow
def test_it_is_exported_with_its_ranges_and_without_images(quantized: TrainingResult, tmp_path: Path):
    request = ExportRequest(quantized.checkpoint, tmp_path / "bundle", ("onnx",), ("fp32", "int8"))
    report = export_bundle(request)
    assert (report.calibration_images, report.warnings) == (0, ())
    assert [row.status for row in report.rows] == ["ok", "ok"]
    assert '"observer":"learned"' in (tmp_path / "bundle" / "bundle.json").read_text().replace(" ", "")
    given = ExportRequest(
        quantized.checkpoint,
        tmp_path / "again",
        ("onnx",),
        ("int8",),
        calibration=open_dataset("builtin", split="val"),
    )
    assert "the images of --calibration only verified" in export_bundle(given).warnings[0]
    saved = [(tmp_path / name / "calibration.json").read_bytes() for name in ("bundle", "again")]
    assert saved[0] == saved[1], "images change nothing that was learned"


@pytest.mark.slow
def test_its_bundle_is_exported_again_from_its_own_calibration_and_recipe(
    quantized: TrainingResult, tmp_path: Path
):
    export_bundle(ExportRequest(quantized.checkpoint, tmp_path / "first", ("onnx",), ("int8",)))
    own = tmp_path / "first"
    stats = Stats.from_json((own / "calibration.json").read_bytes(), source="first")
    recipe = Recipe.load(own / "recipe.toml")
    for name, given in (("both", recipe), ("calibration alone", None)):
        request = ExportRequest(
            quantized.checkpoint, tmp_path / name, ("onnx",), ("int8",), stats=stats, recipe=given
        )
        export_bundle(request)
        assert (tmp_path / name / "recipe.toml").read_text() == (own / "recipe.toml").read_text()
        models = [(folder / "int8" / "model.onnx").read_bytes() for folder in (own, tmp_path / name)]
        assert models[0] == models[1]
