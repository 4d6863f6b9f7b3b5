"""The main job, as a user starts it."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgedet", "demo", "--json", "demo.json"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_demo_exports_proves_and_measures_over_what_an_earlier_run_left(tmp_path: Path) -> None:
    for name in ("bundle.json", "stale"):
        (tmp_path / "demo" / "bundle").mkdir(parents=True, exist_ok=True)
        (tmp_path / "demo" / "bundle" / name).write_text("{}")
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    if importlib.util.find_spec("tensorrt_rtx_bindings") is not None:  # engines are built without a GPU
        assert not re.search(
            "not built|not installed|not compared|pip install|No module|no Python", done.stdout
        )
        assert len(re.findall(r"^tensorrt-rtx +(?:fp32|int8) +(?:built|ok) ", done.stdout, re.MULTILINE)) == 2
    assert all(re.match(r"\[ *\d+\.\d s\] ", line) for line in done.stderr.splitlines()), done.stderr
    result = json.loads((tmp_path / "demo.json").read_text())
    made = {(row["runtime"], row["precision"]) for row in result["rows"]}
    assert made >= {(r, p) for r in ("ort", "openvino", "tflite") for p in ("fp32", "int8")}
    for row in result["rows"]:
        assert row["passed"], row
        assert row["map"] > 0.3, row
        assert row["total_ms_p50"] > 0
        floor = 0.97 if row["precision"] == "int8" else 1.0
        assert row["matched_fraction"] >= floor, row
    sizes = {(row["runtime"], row["precision"]): row["model_bytes"] for row in result["rows"]}
    for runtime, share in (
        ("ort", 0.5),
        ("openvino", 0.85),
        ("tflite", 0.5),
    ):  # OpenVINO's text does not shrink
        assert sizes[runtime, "int8"] < share * sizes[runtime, "fp32"]
    assert "</html>" in (tmp_path / "demo" / "report.html").read_text("utf-8")
    pictures = list((tmp_path / "demo" / "pictures").glob("*.jpg"))
    assert pictures
    assert all(cv2.imread(str(path)) is not None for path in pictures)
    log = (tmp_path / "demo" / "log.txt").read_text("utf-8")
    for stage in ("Making artifacts", "Exporting 8/8", "Comparing 100/100", "Timing artifacts"):
        assert f"] {stage}: done in " in log
        assert f"] {stage}: done in " in done.stderr
    assert (tmp_path / "demo" / "bundle" / "bundle.json").is_file()
    assert not (tmp_path / "demo" / "bundle" / "stale").exists()
