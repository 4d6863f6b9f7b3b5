"""Parity and benchmark on an ARM device over a real sshd, on photographs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from host import Arm64Host

from edgedet.bench.remote import run_benchmark_on
from edgedet.bundle import Bundle, open_bundle
from edgedet.data import open_dataset
from edgedet.devices import LOCAL, Address, RemoteDevice, parse_address
from edgedet.parity import Devices, ParityRow, run_parity

pytestmark = [pytest.mark.arm64, pytest.mark.timeout(1800)]

IMAGES = 3
RUNTIMES = ("ort", "tflite")
CHECKPOINT = Path(__file__).resolve().parents[2] / "weights" / "bccd_ssdlite320_mobilenetv2.safetensors"


@pytest.fixture(scope="session")
def cells(shared_folder: Path, test_data: Path) -> Bundle:
    """The detector of blood cells, resizing as all processors do."""
    pytest.importorskip("litert_torch", reason="the export extra is not installed")
    from edgedet.models.checkpoint import read_config
    from edgedet_calibration.recipe import Recipe
    from edgedet_export.exporter import ExportRequest, export_bundle

    path = shared_folder / "cells"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            config = read_config(CHECKPOINT)
            exact = config.input.model_copy(update={"interpolation": "linear_exact"})
            request = ExportRequest(
                CHECKPOINT,
                path,
                ("onnx", "tflite"),
                ("fp32", "int8"),
                calibration=open_dataset(test_data / "data" / "bccd", "train"),
                recipe=Recipe(images=8),
                config=config.model_copy(update={"input": exact}),
            )
            export_bundle(request)
    return open_bundle(path)


@pytest.fixture
def device(arm64_host: Arm64Host, monkeypatch: pytest.MonkeyPatch) -> str:
    """The device's name, with ssh configured to reach it."""
    monkeypatch.setenv("EDGEDET_SSH_CONFIG", str(arm64_host.ssh_config))
    return arm64_host.url


@pytest.fixture
def left_behind(arm64_host: Arm64Host) -> Callable[[], set[str]]:
    """What a test left there; other tests of the host may have left something before."""

    def files() -> set[str]:
        return set(arm64_host.run("find ~ /tmp -mindepth 1 -not -path ~/.cache").split())

    before = files()
    return lambda: files() - before


def test_arm_detects_in_photographs_what_this_machine_detects(
    cells: Bundle, device: str, test_data: Path, left_behind: Callable[[], set[str]]
) -> None:
    photographs = open_dataset(test_data / "data" / "bccd", "test")
    devices = Devices([Address(LOCAL), parse_address(device)])
    report = run_parity(cells, photographs, RUNTIMES, limit=IMAGES, layers=True, devices=devices)
    rows: dict[tuple[str, str, str], ParityRow] = {(r.device, r.runtime, r.precision): r for r in report.rows}
    assert len(rows) == 2 * len(RUNTIMES) * 2
    for (where, runtime, precision), row in rows.items():
        # A handful of objects: one that is gained or lost is more than mAP may move.
        stages = set(row.stages_over_budget) - {"mAP", "mAP across runtimes", "detections"}
        assert stages == set(), (where, runtime, precision, row.reasons)
        if precision == "int8":
            assert row.layers is not None
            assert all(layer.is_rounding for layer in row.layers.layers)
        assert row.matched > 20
    for runtime in RUNTIMES:
        assert rows[device, runtime, "fp32"].passed
    assert report.devices[device].os.endswith("aarch64")
    assert left_behind() == set()


def test_a_connection_that_is_cut_in_the_middle_is_taken_up_again(
    cells: Bundle,
    device: str,
    arm64_host: Arm64Host,
    test_data: Path,
    left_behind: Callable[[], set[str]],
) -> None:
    photographs = open_dataset(test_data / "data" / "bccd", "test")
    said: list[str] = []
    cut: list[int] = []

    def cutting(items, description, total=None):
        for number, item in enumerate(items):
            yield item
            if description == device and number == 1:
                cut.append(arm64_host.cut_connections())

    devices = Devices([parse_address(device)], tell=said.append)
    whole = run_parity(cells, photographs, ("ort",), ("int8",), limit=IMAGES, devices=devices)
    again = run_parity(cells, photographs, ("ort",), ("int8",), track=cutting, limit=IMAGES, devices=devices)
    assert len(cut) == 1
    assert cut[0] >= 1
    assert said == [f"lost the connection to {device}; connecting again"]
    assert again.rows == whole.rows
    assert left_behind() == set()


def test_a_benchmark_runs_there_and_survives_a_cut(
    cells: Bundle, device: str, arm64_host: Arm64Host, left_behind: Callable[[], set[str]]
) -> None:
    said: list[str] = []
    cut: list[int] = []

    def cutting(items, description, total=None):
        for item in items:
            if description.endswith("Measuring") and not cut:
                cut.append(arm64_host.cut_connections())
            yield item

    with RemoteDevice(parse_address(device), tell=said.append) as opened:
        report = run_benchmark_on(
            opened, cells.root, ("ort",), ("int8",), track=cutting, duration_s=1.0, cold_starts=1
        )
    (row,) = report.rows
    assert (row.device, row.runtime, row.precision) == (device, "ort", "int8")
    assert row.frames >= 1
    assert report.environment.os.endswith("aarch64")
    assert said == [f"lost the connection to {device}; connecting again"]
    assert left_behind() == set()


def test_an_unknown_host_key_is_refused(
    device: str,
    arm64_host: Arm64Host,
    cells: Bundle,
    test_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = tmp_path / "known_hosts"
    other.write_text("")
    config = tmp_path / "ssh_config"
    config.write_text(arm64_host.ssh_config.read_text().replace(str(arm64_host.known_hosts), str(other)))
    monkeypatch.setenv("EDGEDET_SSH_CONFIG", str(config))
    command = [sys.executable, "-m", "edgedet", "parity", cells.root, "--device", device]
    command += ["--data", str(test_data / "data" / "bccd")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 3
    assert "Host key verification failed" in done.stderr
    assert "accept it" in done.stderr
