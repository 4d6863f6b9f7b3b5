"""What is wrong with the arguments is said before PyTorch is imported, which takes seconds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

# PyTorch that cannot be imported would be a missing extra, with exit code 3.
PROGRAM = "import sys; sys.modules['torch'] = None; from edgedet.cli import main; sys.exit(main())"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("{checkpoint}", "--output", "{taken}"), "cannot write .*taken; got something that is not a"),
        (("{none}", "--output", "{new}"), "cannot read .*none.safetensors; got no such file"),
        (("{taken}", "--output", "{new}"), "cannot read .*taken; got a folder"),
        (("{checkpoint}", "--output", "{new}", "--precision", "int8"), "INT8 needs images to calibrate on"),
        (
            ("{checkpoint}", "--output", "{new}", "--precision", "int8", "--calibration", "{none}"),
            "none.safetensors",
        ),
        (("{checkpoint}", "--output", "{new}", "--to", "onnxx"), "onnxx"),
        (("{checkpoint}", "--output", "{new}", "--precision", "int4"), "int4"),
        (("{checkpoint}", "--output", "{new}", "--batch", "0"), "--batch"),
    ],
)
def test_an_export_is_refused_before_pytorch_is_imported(
    checkpoint: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "photo.txt").write_text("mine")
    places = {"checkpoint": checkpoint, "taken": taken, "new": tmp_path / "new"}
    given = [word.format(**places, none=tmp_path / "none.safetensors") for word in words]
    command = [sys.executable, "-c", PROGRAM, "export", *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert re.search(said, " ".join(done.stderr.split()))
    assert not (tmp_path / "new").exists()
