from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command import Command, check_refusal

from edgedet.bundle import open_bundle
from edgedet.models.checkpoint import read_config, read_state

# The detector of the fixture `checkpoint`, as a training configuration holds it.
DETECTOR = """
[detector]
name = "small"
labels = ["circle", "crescent", "cross", "heart", "ring", "square", "star", "triangle"]
score_threshold = 0.1

[detector.input]
size_hw = [96, 96]

[detector.backbone]
name = "mobilenetv2_035"

[detector.head]
extra_channels = [32, 32]
scales = [0.2, 0.4, 0.6, 0.8, 1.0]
"""


@pytest.fixture
def weights(checkpoint: Path, tmp_path: Path) -> Path:
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": read_state(checkpoint), "epoch": 3}, path)
    return path


@pytest.mark.parametrize(
    "table",
    [
        DETECTOR,
        pytest.param(DETECTOR.replace("[detector]", "").replace("detector.", ""), marks=pytest.mark.slow),
    ],
    ids=["of a training", "of a detector"],
)
def test_weights_of_torch_are_exported_with_a_configuration(
    edgedet: Command, checkpoint: Path, weights: Path, tmp_path: Path, table: str
) -> None:
    config = tmp_path / "detector.toml"
    config.write_text(table)
    output = tmp_path / "bundle"
    log = tmp_path / "log.txt"
    result = edgedet("export", weights, "--config", config, "--output", output, "--to", "onnx", "--log", log)
    assert result.code == 0, result
    assert "] Exporting 1/1: done in " in log.read_text()
    assert log.read_text() == result.stderr
    bundle = open_bundle(output)
    inside = bundle.path_of(bundle.artifact("eager", "fp32"))
    assert read_config(inside) == read_config(checkpoint)
    expected, found = read_state(checkpoint), read_state(inside)
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_weights_without_their_detector_are_refused_with_what_to_pass(
    edgedet: Command, weights: Path, tmp_path: Path
) -> None:
    result = edgedet("export", weights, "--output", tmp_path / "bundle", "--to", "onnx")
    check_refusal(result, 2, "does not describe its detector", "--config")
    config = tmp_path / "detector.toml"
    config.write_text(DETECTOR.replace("[96, 96]", "96"))
    result = edgedet("export", weights, "--config", config, "--output", tmp_path / "bundle", "--to", "onnx")
    check_refusal(result, 2, "input.size_hw")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_export_that_is_ended_leaves_nothing_behind(
    checkpoint: Path, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    # A shell ignores SIGINT for what it starts in the background, which the command line respects.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from edgedet.cli import main; sys.exit(main())"
    )
    command = [
        sys.executable,
        "-c",
        program,
        "export",
        str(checkpoint),
        "--output",
        str(tmp_path / "bundle"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(1200):
            if any(tmp_path.iterdir()) or process.poll() is not None:
                break
            time.sleep(0.05)
        assert process.poll() is None, "it ended before it began to write"
        process.send_signal(sent)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
