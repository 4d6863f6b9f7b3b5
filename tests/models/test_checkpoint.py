from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from edgedet.errors import CheckpointError
from edgedet.models.checkpoint import (
    CheckpointInfo,
    load_checkpoint,
    provenance_of,
    read_config,
    read_info,
    read_state,
    round_to_half,
    save_checkpoint,
)
from edgedet.models.config import BackboneConfig, DetectorConfig, SsdLiteConfig
from edgedet.models.detector import Detector, build_detector
from edgedet.spec import InputSpec

CONFIG = DetectorConfig(
    name="tiny",
    labels=("a", "b"),
    input=InputSpec(size_hw=(64, 64)),
    backbone=BackboneConfig(name="lcnet_035", out_strides=(8, 16)),
    head=SsdLiteConfig(extra_channels=(16,), scales=(0.1, 0.3, 0.6, 1.0)),
)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return build_detector(CONFIG).eval()


@pytest.fixture
def saved(detector: Detector, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(
        path, detector, CheckpointInfo(data="squares", metrics={"map": 0.5}, tools={"torch": "2"})
    )
    return path


def test_a_saved_detector_loads_by_itself(detector: Detector, saved: Path):
    loaded = load_checkpoint(saved)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert not loaded.training
    assert loaded.config == CONFIG == read_config(saved)
    for found, expected in zip(loaded(images), detector(images), strict=True):
        assert torch.equal(found, expected)


def test_weights_rounded_to_half_precision_take_half_the_room_and_load_exactly(tmp_path: Path):
    detector = build_detector(CONFIG).eval()
    paths = [tmp_path / f"{name}.safetensors" for name in ("float", "half")]
    save_checkpoint(paths[0], detector)
    round_to_half(detector)
    save_checkpoint(paths[1], detector)
    sizes = [sum(t.nbytes for t in safetensors.torch.load_file(path).values()) for path in paths]
    assert sizes[1] < 0.6 * sizes[0]
    loaded = load_checkpoint(paths[1]).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in detector.state_dict().items())
    assert all(loaded[key].dtype == value.dtype for key, value in detector.state_dict().items())


def test_a_checkpoint_says_where_it_came_from(saved: Path):
    assert read_info(saved).metrics == {"map": 0.5}
    provenance = provenance_of(saved)
    assert provenance.trained_on == "squares"
    assert len(provenance.checkpoint_sha256) == 64


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".npz"])
def test_weights_of_other_formats_load_with_a_configuration(detector: Detector, tmp_path: Path, suffix: str):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".npz":
        np.savez(path, **{key: value.numpy() for key, value in detector.state_dict().items()})
    else:
        torch.save({"state_dict": detector.state_dict(), "epoch": 3}, path)
    loaded = load_checkpoint(path, CONFIG)
    assert torch.equal(
        loaded.state_dict()["head.extras.0.reduce.conv.weight"], detector.head.extras[0].reduce.conv.weight
    )
    with pytest.raises(CheckpointError, match="does not describe its detector"):
        load_checkpoint(path)


def test_a_mismatch_names_the_first_ten_of_each_kind(detector: Detector, saved: Path, tmp_path: Path):
    state = read_state(saved)
    keys = list(detector.state_dict())
    for key in keys[:12]:
        state[f"other.{key}"] = state.pop(key)
    path = tmp_path / "renamed.safetensors"
    safetensors.torch.save_file(state, path)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, CONFIG)
    message = str(caught.value)
    assert "12 missing" in message
    assert "12 unexpected" in message
    named = [key for key in keys if f"({key}" in message or f", {key}" in message]
    assert named == keys[:10]
    assert sum(f"other.{key}" in message for key in keys) == 10
    assert message.count("and 2 more") == 2


def test_weights_of_another_shape_are_refused_and_nothing_is_loaded(saved: Path):
    config = CONFIG.model_copy(update={"labels": ("a", "b", "c")})
    with pytest.raises(
        CheckpointError, match=r"head\.class_predictors\.0\.pointwise\.weight \[18, .* instead of \[24, "
    ):
        load_checkpoint(saved, config)


class _Evil:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name, data in (("a.pth", {"weight": _Evil()}), ("b.npz", np.array([_Evil()], object))):
        path = tmp_path / name
        torch.save(data, path) if name == "a.pth" else np.savez(path, data)
        with pytest.raises(CheckpointError, match="cannot read weights"):
            read_state(path)
    (tmp_path / "c.pt").write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(CheckpointError):
        read_state(tmp_path / "c.pt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "name", ["cut.safetensors", "cut.pth", "cut.npz", "empty.safetensors", "empty.pth", "empty.npz"]
)
def test_a_damaged_file_is_refused(saved: Path, tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(saved.read_bytes()[:200] if name.startswith("cut") else b"")
    with pytest.raises(CheckpointError):
        load_checkpoint(path, CONFIG)


@pytest.mark.parametrize("name", ["missing.safetensors", "model.onnx"])
def test_what_is_no_file_of_weights_is_refused(tmp_path: Path, name: str):
    if name == "model.onnx":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(tmp_path / name)


def test_a_dictionary_of_something_else_is_refused(tmp_path: Path):
    torch.save({"epoch": 3}, tmp_path / "state.pth")
    with pytest.raises(CheckpointError, match="not a dictionary of tensors"):
        read_state(tmp_path / "state.pth")
