"""A training run that takes seconds: drawn shapes, 96 pixels, a network of 0.1 M parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

CONFIG = """
seed = 3
epochs = 3
batch_size = 8
amp = false
evaluate_every = 100

[data]
path = "builtin"
train = "val"
evaluate = ""

[optimizer]
learning_rate = 4e-3
warmup_epochs = 0.5

[detector]
name = "tiny"
labels = ["circle", "crescent", "cross", "heart", "ring", "square", "star", "triangle"]

[detector.input]
size_hw = [96, 96]

[detector.backbone]
name = "lcnet_035"
out_strides = [8, 16]

[detector.head]
extra_channels = [32]
scales = [0.1, 0.25, 0.5, 0.9]
aspect_ratios = [2.0]
"""


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory):
    """Write the configuration with some of its lines replaced; returns its path."""

    def write(replacements: Mapping[str, str] | None = None) -> Path:
        text = CONFIG
        for old, new in (replacements or {}).items():
            assert old in text
            text = text.replace(old, new)
        path = tmp_path_factory.mktemp("config") / "tiny.toml"
        path.write_text(text)
        return path

    return write
