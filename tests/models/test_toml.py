"""TOML files: what is broken or hostile is refused by name in each kind of file that people write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgedet.errors import ConfigError
from edgedet.models.config import read_detector_config
from edgedet.parity.budgets import load_budgets
from edgedet.training.config import read_train_config
from edgedet_calibration.recipe import Recipe

READERS: list[Callable[[Path], object]] = [read_detector_config, load_budgets, read_train_config, Recipe.load]


@pytest.fixture(params=READERS, ids=["detector", "budgets", "training", "recipe"])
def read(request: pytest.FixtureRequest) -> Callable[[Path], object]:
    found: Callable[[Path], object] = request.param
    return found


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"images = " + b"9" * 4301, "4300 digits"),
        (b"images = " + b"[" * 500, "hundreds deep"),
        (b"images = " + b"{a=" * 500, "hundreds deep"),
        (b"images = \xff", "decode"),
        (b"images", "Expected"),
    ],
)
def test_a_file_that_is_no_toml_is_refused(
    read: Callable[[Path], object], tmp_path: Path, content: bytes, got: str
) -> None:
    path = tmp_path / "file.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"file\.toml is no TOML") as caught:
        read(path)
    assert got in caught.value.got


@pytest.mark.parametrize("name", ["none.toml", "a" * 300, "with\0nul"])
def test_a_path_that_cannot_be_read_is_refused(
    read: Callable[[Path], object], tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match="cannot read "):
        read(tmp_path / name)


@pytest.mark.parametrize("pattern", ["caf\u00e9*", "\U0001f600", 'a"b\\c', "\x7f\x01\t", "node_[!0]"])
def test_a_recipe_is_read_as_it_was_written(tmp_path: Path, pattern: str) -> None:
    recipe, path = Recipe(float_layers=(pattern,)), tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml(), "utf-8")
    assert Recipe.load(path) == recipe


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(b"\xef\xbb\xbfimages = 3\n")
    assert Recipe.load(tmp_path / "recipe.toml").images == 3
