"""The benchmark on a device: all of it runs there, and the report comes back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from stand_in import StandIn

from edgedet.bench.remote import _source_files, run_benchmark_on
from edgedet.bundle import Bundle
from edgedet.data import open_dataset
from edgedet.devices import RemoteDevice
from edgedet.errors import UsageError

QUICK = {"duration_s": 0.2, "cold_starts": 1}


def test_the_report_is_that_of_the_device_and_nothing_is_left(full_bundle: Bundle, stand_in: StandIn) -> None:
    said: list[str] = []
    shown: dict[str, int] = {}

    def track(items, description, total=None):
        for item in items:
            shown[description] = shown.get(description, 0) + 1
            yield item

    with RemoteDevice(stand_in.address) as device:
        report = run_benchmark_on(
            device,
            full_bundle.root,
            ("ort",),
            ("fp32", "int8"),
            open_dataset("builtin", "test"),
            track,
            said.append,
            threads=(1,),
            **QUICK,
        )
    assert [(row.runtime, row.precision, row.device) for row in report.rows] == [
        ("ort", "fp32", "ssh://pi@camera"),
        ("ort", "int8", "ssh://pi@camera"),
    ]
    assert "the first 8 images of builtin-test" in report.images
    assert report.environment.packages["onnxruntime"]
    assert len(said) == 1
    assert said[0].startswith("ssh://pi@camera: ")
    assert shown["ssh://pi@camera: Measuring"] > 1
    assert stand_in.is_clean


def test_a_device_gets_the_batches_that_are_asked_for_and_no_others(
    batched_bundle: Bundle, stand_in: StandIn
) -> None:
    for batches in ((1,), (1, 2)):
        with RemoteDevice(stand_in.address) as device:
            report = run_benchmark_on(
                device, batched_bundle.root, ("ort",), ("fp32",), batches=batches, threads=(1,), **QUICK
            )
        assert [row.batch for row in report.rows] == list(batches)
        files, _ = _source_files(batched_bundle.root, ("ort",), ("fp32",), batches)
        models = [name for name in files if name.endswith(".onnx")]
        assert models == ["bundle/fp32/model.onnx", "bundle/fp32/batch2/model.onnx"][: len(batches)]


def test_a_connection_that_is_cut_does_not_end_the_measurement(
    full_bundle: Bundle, stand_in: StandIn
) -> None:
    said: list[str] = []
    with RemoteDevice(stand_in.address, tell=said.append) as device:
        cut: list[bool] = []

        def track(items, description, total=None):
            for item in items:
                if description.endswith("Measuring") and not cut:
                    cut.append(True)
                    os.kill(device._connection._process.pid, signal.SIGKILL)
                yield item

        report = run_benchmark_on(device, full_bundle.root, ("ort",), ("int8",), None, track, **QUICK)
    assert said == ["lost the connection to ssh://pi@camera; connecting again"]
    assert [row.runtime for row in report.rows] == ["ort"]


def test_one_file_is_measured_with_what_belongs_to_it(full_bundle: Bundle, stand_in: StandIn) -> None:
    path = full_bundle.root / "fp32" / "model.xml"
    with RemoteDevice(stand_in.address) as device:
        report = run_benchmark_on(device, path, **QUICK)
    assert [(row.runtime, row.precision) for row in report.rows] == [("openvino", "fp32")]


def test_what_the_device_refuses_is_refused_here(
    full_bundle: Bundle, stand_in: StandIn, tmp_path: Path
) -> None:
    with RemoteDevice(stand_in.address) as device, pytest.raises(UsageError, match="cannot measure that"):
        run_benchmark_on(device, full_bundle.root, ("ort",), threads=(0,))
    assert stand_in.sessions == []
