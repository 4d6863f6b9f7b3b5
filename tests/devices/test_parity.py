"""Parity where artifacts run on a device: a process that was sent everything, and preprocesses by itself."""

from __future__ import annotations

import io
import os
import signal
import zipfile

import pytest
from stand_in import StandIn

from edgedet.bundle import Bundle
from edgedet.data import open_dataset
from edgedet.devices import LOCAL, Address, RemoteDevice, payload
from edgedet.errors import MissingExtraError
from edgedet.parity import ParityReport, ParityRow
from edgedet.parity.run import Devices, run_parity

IMAGES = 4
NUMBERS = (
    "map",
    "matched",
    "lost",
    "gained",
    "max_score_delta",
    "max_box_px",
    "decoded_matched_fraction",
    "output_snr_db",
    "reasons",
)


def parity(bundle: Bundle, devices: Devices, runtimes=("ort", "tflite"), **options) -> ParityReport:
    data = open_dataset("builtin", "test")
    return run_parity(bundle, data, runtimes, limit=IMAGES, devices=devices, **options)


def found(row: ParityRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in NUMBERS}


def send_other_code(monkeypatch: pytest.MonkeyPatch, module: str, line: str, changed: str) -> None:
    """Change a line of what is sent to devices, so that they do something else than this machine."""
    archive = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(payload.code_archive())) as code,
        zipfile.ZipFile(archive, "w") as written,
    ):
        for name in code.namelist():
            text = code.read(name).decode()
            if name == module:
                assert text.count(line) == 1
                text = text.replace(line, changed)
            written.writestr(name, text)
    monkeypatch.setattr("edgedet.devices.device.code_archive", archive.getvalue)


def test_a_device_gives_the_rows_that_this_machine_gives(full_bundle: Bundle, stand_in: StandIn) -> None:
    devices = Devices([Address(LOCAL), stand_in.address])
    report = parity(full_bundle, devices, precisions=("fp32", "int8"), layers=True)
    here = [row for row in report.rows if row.device == "local"]
    there = [row for row in report.rows if row.device == "ssh://pi@camera"]
    assert [(row.runtime, row.precision) for row in there] == [
        (runtime, precision) for precision in ("fp32", "int8") for runtime in ("ort", "tflite")
    ]
    for ours, theirs in zip(here, there, strict=True):
        assert found(theirs) == found(ours)
    for ours, theirs in zip(here, there, strict=True):
        if ours.precision == "int8":
            assert ours.layers is not None
            assert theirs.layers is not None
            assert [one.grid for one in theirs.layers.layers] == [one.grid for one in ours.layers.layers]
            assert all(one.is_rounding for one in theirs.layers.layers)
    assert report.devices["ssh://pi@camera"].packages["onnxruntime"]
    assert stand_in.sessions == []


def test_a_connection_that_is_cut_changes_nothing(
    full_bundle: Bundle, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = parity(full_bundle, Devices([stand_in.address]), ("ort",), precisions=("fp32",))
    devices: list[RemoteDevice] = []
    said: list[str] = []

    def cut(items, description, total=None):
        for number, item in enumerate(items):
            yield item
            if description == "ssh://pi@camera" and number == 2:
                os.kill(devices[-1]._connection._process.pid, signal.SIGKILL)

    opened = RemoteDevice.__init__
    monkeypatch.setattr(
        RemoteDevice, "__init__", lambda self, *a, **k: (devices.append(self), opened(self, *a, **k))[1]
    )
    again = parity(
        full_bundle, Devices([stand_in.address], tell=said.append), ("ort",), precisions=("fp32",), track=cut
    )
    assert said == ["lost the connection to ssh://pi@camera; connecting again"]
    assert [found(row) for row in again.rows] == [found(row) for row in whole.rows]


@pytest.mark.parametrize(
    ("module", "line", "changed", "stage"),
    [
        (
            "edgedet/preprocess.py",
            "    pixels = image_bgr\n",
            "    pixels = np.ascontiguousarray(image_bgr[..., ::-1])\n",
            "input tensor",
        ),
        (
            "edgedet/decode/__init__.py",
            "clip(geometry.to_image(boxes), geometry.image_hw)",
            "clip(geometry.to_image(boxes) + 5, geometry.image_hw)",
            "decoded boxes",
        ),
        (
            "edgedet/decode/__init__.py",
            'threshold = _share("iou_threshold", iou_threshold, spec.iou_threshold)',
            "threshold = 1.0",
            "detections",
        ),
    ],
)
def test_a_device_that_computes_something_else_is_found_at_its_stage(
    full_bundle: Bundle,
    stand_in: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    line: str,
    changed: str,
    stage: str,
) -> None:
    send_other_code(monkeypatch, module, line, changed)
    (row,) = parity(full_bundle, Devices([stand_in.address]), ("ort",), precisions=("fp32",)).rows
    assert row.first_stage_over_budget == stage


def test_input_tensors_that_differ_and_are_not_sent_are_counted(
    full_bundle: Bundle, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_other_code(
        monkeypatch,
        "edgedet/parity/on_device.py",
        'image["tensor_sha256"], sent < _MOST_TENSORS)',
        '"of another tensor", sent < 1)',
    )
    (row,) = parity(full_bundle, Devices([stand_in.address]), ("ort",), precisions=("fp32",)).rows
    assert row.unseen_inputs == IMAGES - 1
    assert row.notes[0].startswith(f"the input tensors of {IMAGES - 1} further images differ there")


def test_a_device_that_fails_midway_costs_no_other_row(
    full_bundle: Bundle, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_other_code(
        monkeypatch,
        "edgedet/parity/on_device.py",
        "        write(record)\n",
        "        write(record)\n            import os\n            os._exit(9)\n",
    )
    devices = Devices([Address(LOCAL), stand_in.address])
    here, there = parity(full_bundle, devices, ("ort",), precisions=("fp32",)).rows
    assert (here.passed, here.images) == (True, IMAGES)
    assert (there.passed, there.first_stage_over_budget, there.images) == (False, "runtime", 1)
    assert "exit status 9" in there.reasons[0]
    assert stand_in.is_clean


def test_a_runtime_that_a_device_lacks_is_skipped_unless_it_was_asked_for(
    full_bundle: Bundle, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_other_code(
        monkeypatch, "edgedet/registry.py", '"edgedet_runtimes.tflite:', '"edgedet_runtimes.absent:'
    )
    devices = Devices([stand_in.address])
    report = parity(full_bundle, devices, None, precisions=("fp32",))
    assert [row.runtime for row in report.rows] == ["openvino", "ort"]
    reasons = [skipped.reason for skipped in report.skipped if skipped.runtime == "tflite"]
    assert len(reasons) == 1
    assert reasons[0].startswith("ssh://pi@camera: ")
    with pytest.raises(MissingExtraError):
        parity(full_bundle, devices, ("tflite",), precisions=("fp32",))
    assert stand_in.sessions == []


def test_an_image_that_a_device_cannot_read_is_named_and_the_others_are_compared(
    full_bundle: Bundle, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "    image = _decode(data)\n"
    changed = "    image = None if b'IHDR' in data and data[20:24] == bytes(%r) else _decode(data)\n"
    height = open_dataset("builtin", "test")[1].image_bgr.shape[0]
    heights = [open_dataset("builtin", "test")[i].image_bgr.shape[0] for i in range(IMAGES)]
    send_other_code(monkeypatch, "edgedet/data/images.py", line, changed % list(height.to_bytes(4, "big")))
    (row,) = parity(full_bundle, Devices([stand_in.address]), ("ort",), precisions=("fp32",)).rows
    assert row.first_stage_over_budget == "input tensor"
    assert any("cannot be read there, the first is" in reason for reason in row.reasons)
    assert row.images == sum(one != height for one in heights) > 0
