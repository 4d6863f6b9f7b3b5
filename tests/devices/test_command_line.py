"""Commands that run on devices, as a person gives and ends them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from stand_in import StandIn

from edgedet.bench import BenchmarkReport, run_benchmark
from edgedet.bench.history import History
from edgedet.bundle import Bundle
from edgedet.cli import main
from edgedet.devices import RemoteDevice
from edgedet.errors import UsageError, VendorError


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "edgedet", *map(str, words)]


def device_of(stand_in: StandIn) -> str:
    return f"{stand_in.address}?python={stand_in.address.python}"


def test_ctrl_c_ends_a_benchmark_on_both_sides(full_bundle: Bundle, stand_in: StandIn) -> None:
    words = command("benchmark", full_bundle.root, "--runtimes", "ort", "--duration", "2h", "--no-history")
    # A group of its own, all of which a terminal would interrupt. Jobs in the background of a shell ignore
    # SIGINT, and so would all that they start.
    process = subprocess.Popen(
        [*words, "--device", device_of(stand_in)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stderr is not None
        assert any("in turns" in line for line in process.stderr)
        os.killpg(process.pid, signal.SIGINT)
        started = time.monotonic()
        process.communicate(timeout=60)
        assert time.monotonic() - started < 30
    finally:
        process.kill()
    assert process.returncode == 130
    assert stand_in.is_clean
    running = subprocess.run(["pgrep", "-f", str(stand_in.cache)], capture_output=True, check=False)
    assert running.stdout == b""


def test_what_one_device_measured_is_kept_where_another_fails(
    full_bundle: Bundle,
    stand_in: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def measure(device: RemoteDevice, source: Any, **options: Any) -> BenchmarkReport:
        if device.address.port == 23:
            raise VendorError("ort could not run", got="a", expected="b", fix="c")
        return run_benchmark(full_bundle.root, ("ort",), ("fp32",), duration_s=0.1)

    monkeypatch.setattr("edgedet.cli.benchmark.run_benchmark_on", measure)
    monkeypatch.setattr("edgedet.devices.together.take_turns", lambda *_: None)  # both are one machine
    file = tmp_path / "report.json"
    broken = device_of(stand_in).replace("camera", "camera:23")
    words = ["benchmark", str(full_bundle.root), "--quick", "--no-history", "--json", str(file)]
    words += ["--device", broken, "--device", device_of(stand_in)]
    assert main(words) == VendorError.exit_code
    said = capsys.readouterr()
    assert "ort could not run" in said.err
    assert "fp32" in said.out
    assert len(json.loads(file.read_text())["reports"]) == 1


def test_one_machine_by_two_addresses_is_refused(
    full_bundle: Bundle, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["benchmark", str(full_bundle.root), "--quick", "--no-history"]
    words += ["--device", device_of(stand_in), "--device", device_of(stand_in).replace("camera", "camera:23")]
    assert main(words) == UsageError.exit_code
    assert "two of the devices are one machine" in capsys.readouterr().err
    assert stand_in.is_clean


def test_what_a_device_measured_is_kept_where_this_machine_fails(
    full_bundle: Bundle, stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> BenchmarkReport:
        raise VendorError("ort could not run", got="a", expected="b", fix="c")

    measured = run_benchmark(full_bundle.root, ("ort",), ("fp32",), duration_s=0.1)
    monkeypatch.setattr("edgedet.cli.benchmark.run_benchmark_on", lambda *_, **__: measured)
    monkeypatch.setattr("edgedet.cli.benchmark.run_benchmark", fail)
    file, history = tmp_path / "report.json", tmp_path / "history.sqlite"
    words = ["benchmark", str(full_bundle.root), "--quick", "--history", str(history), "--json", str(file)]
    words += ["--device", device_of(stand_in), "--device", "local"]
    assert main(words) == VendorError.exit_code
    assert len(json.loads(file.read_text())["reports"]) == 1
    assert len(History(history).entries()) == 1
