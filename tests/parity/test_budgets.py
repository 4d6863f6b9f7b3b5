"""Budgets are data: those that come with edgedet, and a user's over them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedet.errors import ConfigError
from edgedet.parity import load_budgets
from edgedet.parity.budgets import MOST_TOLERANCE


def written(folder: Path, text: str) -> Path:
    path = folder / "budgets.toml"
    path.write_text(text)
    return path


def test_the_defaults_are_those_that_the_architecture_gives():
    budgets = load_budgets()
    assert budgets.fp32.output_max_relative_error == 1e-4
    assert (budgets.fp32.min_matched_fraction, budgets.fp32.max_box_px) == (1, 0.02)
    assert (budgets.fp16.output_min_snr_db, budgets.fp16.matched_iou) == (40, 0.9)
    assert (budgets.int8.output_min_snr_db, budgets.int8.min_map_fraction) == (30, 0.99)
    assert (budgets.fp32.threshold_tolerance, budgets.int8.threshold_tolerance) == (1e-4, 0.05)
    assert (budgets.fp32.max_score_delta, budgets.fp32.max_map_delta_points) == (1e-4, 0.05)
    assert (budgets.int8_a16.output_min_snr_db, budgets.int8_dynamic.output_min_snr_db) == (40, 20)
    assert budgets.int8.max_cross_runtime_map_points == 0.5


def test_a_user_changes_one_key_and_keeps_the_others(tmp_path: Path):
    budgets = load_budgets(written(tmp_path, "[int8]\nmin_map_fraction = 0.95\n"))
    assert (budgets.int8.min_map_fraction, budgets.int8.output_min_snr_db) == (0.95, 30)
    assert budgets.fp32 == load_budgets().fp32
    budgets = load_budgets(written(tmp_path, "[int8-a16]\nmin_map_fraction = 0.95\n"))
    assert budgets.of("int8-a16").min_map_fraction == 0.95
    assert budgets.of("int8-dynamic") == load_budgets().int8_dynamic


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[int8]\nmin_map_fractoin = 0.9\n", "int8.min_map_fractoin"),
        ("[int4]\nmatched_iou = 0.9\n", "int4"),
        ("int8 = 3\n", "int8"),
        ("[int8]\nmatched_iou = 1.5\n", "int8.matched_iou"),
        (f"[int8]\nthreshold_tolerance = {MOST_TOLERANCE + 0.01}\n", "int8.threshold_tolerance"),
        ("[int8]\nmatched_iou = nan\n", "int8.matched_iou"),
        ("[int8\n", "Expected"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(tmp_path: Path, text: str, named: str):
    with pytest.raises(ConfigError, match=named):
        load_budgets(written(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"cannot read .*none\.toml"):
        load_budgets(tmp_path / "none.toml")
