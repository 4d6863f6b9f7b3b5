from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from edgedet.errors import ConfigError, UsageError
from edgedet.models.zoo import ZOO, zoo_config
from edgedet.training.config import TrainConfig, read_train_config
from edgedet.training.example import example_config

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_configuration_of_the_project_reads(path):
    assert read_train_config(path).detector.name == path.stem


def test_there_are_configurations():
    assert CONFIGS


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("epochs = 60", "epochs = -1", "epochs"),
        ("epochs = 60", "epocs = 60", "epocs"),
        ("learning_rate = 1e-3", "learning_rate = nan", "optimizer.learning_rate"),
        ("out_strides = [8, 16, 32]", "out_strides = [16, 8]", "detector.backbone"),
        ("scales = [0.075,", "scales = [", "detector"),
        ('train = "train+val"', "train = 3", "data.train"),
        (
            '"RBC", "WBC"',
            '"RBC", "RBC"',
            r"detector\.labels: every label is there once, got 'RBC' more often",
        ),
        ('"bccd_ssd', '"b/ccd_ssd', r"detector\.name: a detector's name is a plain file name"),
        ('name = "bccd_ssdlite320_mobilenetv2"', 'name = ".."', r"detector\.name: .* got '\.\.'"),
        ("size_hw = [320, 320]", "size_hw = [320]", r"detector\.input\.size_hw\.1: it is missing"),
    ],
)
def test_a_wrong_key_is_named(tmp_path, old, new, named):
    text = (CONFIGS[0].parent / "bccd_ssdlite320_mobilenetv2.toml").read_text()
    assert old in text
    path = tmp_path / "wrong.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=named) as caught:
        read_train_config(path)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("old", "new", "keys", "absent"),
    [
        ("epochs = 60", "epocs = 60", ["epochs, batch_size", "in the file"], "warmup_epochs"),
        ("warmup_epochs", "warmup", ["learning_rate, weight_decay", "in [optimizer]"], "batch_size"),
        ("size_hw", "size", ["size_hw, colour", "in [detector.input]"], "batch_size"),
    ],
)
def test_an_unknown_key_lists_the_keys_of_its_table(tmp_path, old, new, keys, absent):
    path = tmp_path / "wrong.toml"
    path.write_text((CONFIGS[0].parent / "bccd_ssdlite320_mobilenetv2.toml").read_text().replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        read_train_config(path)
    assert "there is no such key" in caught.value.got
    assert all(text in caught.value.expected for text in keys)
    assert absent not in caught.value.expected
    assert "edgedet." not in str(caught.value), "a name of Python says nothing to a user"


@pytest.mark.parametrize("name", ZOO)
def test_the_example_of_every_detector_of_the_zoo_reads_back_as_the_defaults(tmp_path, name: str):
    path = tmp_path / "detector.toml"
    path.write_text(example_config(name), "utf-8")
    config = read_train_config(path)
    assert config == TrainConfig(detector=zoo_config(name, config.detector.labels))


def test_an_example_holds_every_key_that_has_more_than_one_legal_value():
    written = tomllib.loads(example_config("ssdlite320_mobilenetv2"))
    whole = TrainConfig(detector=zoo_config("ssdlite320_mobilenetv2", ("cat", "dog"))).model_dump()
    fixed = {f"detector.input.{name}" for name in ("name", "batch", "layout", "dtype")} | {
        "detector.head.type"
    }
    assert set(dotted(whole)) - set(dotted(written)) == fixed


def dotted(table: dict, prefix: str = ""):
    for key, value in table.items():
        yield from dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]


def test_a_detector_that_is_trained_is_of_one_image_at_a_time():
    written = tomllib.loads(example_config("ssdlite320_mobilenetv2"))
    written["detector"]["input"]["batch"] = 2
    with pytest.raises(ValidationError, match=r"input\.batch is 1 here, got 2"):
        TrainConfig.model_validate(written)


def test_an_example_of_an_unknown_name_is_refused():
    with pytest.raises(UsageError, match="no such detector in the zoo"):
        example_config("yolo")


@pytest.mark.parametrize("content", [b"epochs = ", b"\xff\xfe", b""])
def test_what_is_no_configuration_is_refused(tmp_path, content):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        read_train_config(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.toml"):
        read_train_config(tmp_path / "nothing.toml")
