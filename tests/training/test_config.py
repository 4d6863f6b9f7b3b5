from __future__ import annotations

from pathlib import Path

import pytest

from edgedet.errors import ConfigError
from edgedet.training.config import read_train_config

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


@pytest.mark.parametrize("content", [b"epochs = ", b"\xff\xfe", b""])
def test_what_is_no_configuration_is_refused(tmp_path, content):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        read_train_config(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.toml"):
        read_train_config(tmp_path / "nothing.toml")
