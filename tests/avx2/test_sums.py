"""INT8 on a processor without VNNI and here, on photographs: with sums that overflow, and without."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stand_in import StandIn

from edgedet.bundle import Bundle
from edgedet.data import open_dataset
from edgedet.devices import LOCAL, Address
from edgedet.parity import Devices, ParityRow, run_parity
from edgedet.processor import read_processor
from edgedet.proof import prove_artifact

pytestmark = [pytest.mark.avx2, pytest.mark.timeout(3600)]

IMAGES = 2
# mAP moves by points where one of few objects differs, unless nothing does.
IMAGES_OF_MAP = 12
MAX_MAP_POINTS = 0.05
RUNTIMES = ("ort", "openvino")
# oneDNN's own limit gives the kernels of the emulated processor at full speed.
AVX2_OF_ONEDNN = {"ONEDNN_MAX_CPU_ISA": "AVX2"}

Outputs = Callable[..., Mapping[str, Any]]

here_without_vnni = pytest.mark.skipif(
    bool(read_processor().saturates), reason="this machine has no VNNI itself: nothing differs there"
)


def decibels(reference: Mapping[str, Any], found: Mapping[str, Any], name: str) -> float:
    """Signal to noise of an output over all images."""
    keys = [key for key in reference if key.endswith(f"/{name}")]
    signal = sum(float(np.square(reference[key]).sum()) for key in keys)
    noise = sum(float(np.square(reference[key] - found[key]).sum()) for key in keys)
    return 10 * np.log10(signal / noise) if noise else np.inf


def rows_on(bundle: Bundle, photographs: Path, device: StandIn, images: int) -> dict[Any, ParityRow]:
    devices = Devices([Address(LOCAL), device.address])
    data = open_dataset(photographs, "test")
    report = run_parity(bundle, data, RUNTIMES, ("int8",), limit=images, devices=devices)
    return {(row.runtime, row.device): row for row in report.rows}


@here_without_vnni
def test_sums_that_overflow_are_named_there_and_not_here(
    unsafe_cells: Bundle, photographs: Path, avx2_device: StandIn
) -> None:
    rows = rows_on(unsafe_cells, photographs, avx2_device, IMAGES)
    for runtime in RUNTIMES:
        here, there = rows[runtime, LOCAL], rows[runtime, str(avx2_device.address)]
        assert not there.passed
        assert there.output_snr_db is not None
        assert here.output_snr_db is not None
        assert there.output_snr_db < here.output_snr_db - 5
        (reason,) = (reason for reason in there.reasons if "no VNNI" in reason)
        assert "of 77 layers can overflow (node_conv2d" in reason
        assert "Export again" in reason
        assert there.first_stage_over_budget in {"layers", "raw outputs"}
        assert not [reason for reason in here.reasons if "no VNNI" in reason]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_sums_that_cannot_overflow_are_the_same_to_the_bit(
    safe_cells: Bundle, avx2_python: Path, outputs: Outputs, runtime: str
) -> None:
    proof = prove_artifact(safe_cells, safe_cells.artifact(runtime, "int8"))
    assert proof is not None
    assert proof.is_exact
    assert proof.layers == 77
    here = outputs(sys.executable, safe_cells, runtime, IMAGES)
    there = outputs(avx2_python, safe_cells, runtime, IMAGES)
    assert len(there) == 2 * IMAGES
    for name, array in there.items():
        np.testing.assert_array_equal(array, here[name], err_msg=name)


def test_litert_has_no_sums_that_overflow(unsafe_cells: Bundle, avx2_python: Path, outputs: Outputs) -> None:
    """XNNPACK adds in 32 bits: outputs are the same to the bit with weights that the others need smaller."""
    pytest.importorskip("litert_torch", reason="the export extra is not installed")
    here = outputs(sys.executable, unsafe_cells, "tflite", IMAGES)
    there = outputs(avx2_python, unsafe_cells, "tflite", IMAGES)
    assert len(there) == 2 * IMAGES
    for name, array in there.items():
        np.testing.assert_array_equal(array, here[name], err_msg=name)


@here_without_vnni
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_sums_that_overflow_change_outputs(
    unsafe_cells: Bundle, avx2_python: Path, outputs: Outputs, runtime: str
) -> None:
    """Without this, what is the same to the bit might be so for another reason."""
    here = outputs(sys.executable, unsafe_cells, runtime, 1)
    there = outputs(avx2_python, unsafe_cells, runtime, 1)
    assert decibels(here, there, "box_offsets") < 30


def test_map_is_the_same_there(safe_cells: Bundle, photographs: Path, avx2_device: StandIn) -> None:
    rows = rows_on(safe_cells, photographs, avx2_device, IMAGES_OF_MAP)
    for runtime in RUNTIMES:
        here, there = rows[runtime, LOCAL], rows[runtime, str(avx2_device.address)]
        assert here.map is not None
        assert there.map is not None
        assert 100 * abs(here.map - there.map) <= MAX_MAP_POINTS
        assert not [reason for reason in there.reasons if "no VNNI" in reason]


@pytest.mark.parametrize("cells", ["safe_cells", "unsafe_cells"])
def test_openvino_on_avx2_is_what_onednn_gives_when_it_is_limited(
    request: pytest.FixtureRequest, avx2_python: Path, outputs: Outputs, cells: str
) -> None:
    bundle = request.getfixturevalue(cells)
    limited = outputs(sys.executable, bundle, "openvino", 2, **AVX2_OF_ONEDNN)
    emulated = outputs(avx2_python, bundle, "openvino", 2)
    for name, array in emulated.items():
        np.testing.assert_array_equal(array, limited[name], err_msg=name)
