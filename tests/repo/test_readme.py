"""Every command of the README is run as it stands there, or is listed here with the reason why not."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from source_tree import ROOT

from edgedet.cli.demo import find_checkpoint
from edgedet.data import open_dataset
from edgedet.parity import load_budgets
from edgedet.training.config import read_train_config

NOT_RUN = {
    "make demo": "tests/flow runs the command behind it",
    "make test": "it would run this test",
}

# Where TensorRT is missing, export keeps the ONNX and says so with 3. Eight images are too few to hold INT8
# to its budget of mAP, which parity then says with 1.
EXIT_CODES = {"edgedet export": {0, 3}, "edgedet parity": {0, 1}}

CONFIG = """
epochs = 1
batch_size = 4
amp = false

[detector]
name = "detector"
labels = ["circle", "square"]
input = { size_hw = [96, 96] }
backbone = { name = "mobilenetv2_035", out_strides = [16, 32] }
head = { extra_channels = [32], scales = [0.2, 0.4, 0.6, 0.8] }
"""


def blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("bash") for line in block.splitlines() if line.strip()]


def write_photos(folder: Path) -> None:
    """A YOLO data set of the built-in classes with three splits, and a photo beside it."""
    dataset = open_dataset("builtin", "test")
    names = "".join(f"  {i}: {label}\n" for i, label in enumerate(dataset.labels))
    (folder / "photos").mkdir()
    (folder / "photos" / "data.yaml").write_text(
        f"train: images/train\nval: images/val\ntest: images/test\nnames:\n{names}"
    )
    for index in range(24):
        split, image = ("train", "val", "test")[index % 3], dataset[index]
        height, width = image.image_bgr.shape[:2]
        lines = [
            f"{c} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} {(y2 - y1) / height}"
            for c, (x1, y1, x2, y2) in zip(image.class_ids, image.boxes_xyxy, strict=True)
        ]
        for kind, suffix, data in (
            ("images", ".jpg", cv2.imencode(".jpg", image.image_bgr)[1].tobytes()),
            ("labels", ".txt", "\n".join(lines).encode()),
        ):
            path = folder / "photos" / kind / split / f"{index:03}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    shutil.copy(folder / "photos" / "images" / "test" / "002.jpg", folder / "photo.jpg")


def config_of_demo() -> str:
    """The configuration of the detector whose weights stand in for those of one epoch."""
    text = (ROOT / "configs" / f"{find_checkpoint().stem}.toml").read_text("utf-8")
    text = re.sub(r"(?m)^(train|evaluate) = .*", r'\1 = "val"', text)
    text = text.replace(f'name = "{find_checkpoint().stem}"', 'name = "detector"')
    return text + "\n[qat]\nepochs = 1\nimages = 4\n"


def test_the_readme_has_commands_and_none_that_is_excused_is_gone() -> None:
    found = commands()
    assert set(NOT_RUN) <= set(found)
    assert {shlex.split(command)[0] for command in found} == {"edgedet", "make"}


def test_the_budgets_of_the_readme_can_be_loaded(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "budgets.toml").write_text(text)
    found = load_budgets(tmp_path / "budgets.toml")
    assert found.int8.of_class("Platelets").min_objects == 50
    assert found.baseline.max_map_drop_points == 0.3


@pytest.mark.parametrize("target", [command for command in NOT_RUN if command.startswith("make")])
def test_make_knows_the_targets(target: str) -> None:
    done = subprocess.run(
        [*shlex.split(target), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_commands_work_in_the_order_of_the_readme(tmp_path: Path) -> None:
    write_photos(tmp_path)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in commands():
        if command in NOT_RUN:
            continue
        if "--qat" in command:
            (tmp_path / "detector.toml").write_text(config_of_demo())
        if command.startswith("edgedet recommend"):
            command += " --duration 2"  # the rest of its time would be the same
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, shell=True
        )
        allowed = EXIT_CODES.get(" ".join(shlex.split(command)[:2]), {0})
        assert done.returncode in allowed, f"{command}\n{done.stdout}\n{done.stderr}"
        if command.endswith("> detector.toml"):
            assert read_train_config(tmp_path / "detector.toml").epochs > 1
            (tmp_path / "detector.toml").write_text(CONFIG)  # which trains in seconds
        if command.startswith("edgedet train"):
            # One epoch teaches nothing, and what knows nothing cannot be compared in INT8.
            shutil.copy(find_checkpoint(), tmp_path / "runs" / "detector" / "detector.safetensors")
    assert (tmp_path / "report.html").stat().st_size > 1000
    assert (tmp_path / "pictures" / "photo.jpg").is_file()
    (program,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") > 0
