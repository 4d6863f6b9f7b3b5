from __future__ import annotations

import numpy as np
import pytest

from edgedet.devices.records import Record, error_from, error_header
from edgedet.errors import InternalError, MissingExtraError

WHOLE = Record({"number": 3}, {"square": np.arange(600.0).reshape(20, 30)}).to_bytes()


def test_a_record_is_read_as_it_was_written() -> None:
    record = Record.from_bytes(WHOLE)
    assert record.header == {"number": 3}
    assert np.array_equal(record.arrays["square"], np.arange(600.0).reshape(20, 30))


@pytest.mark.parametrize("length", [0, 1, 10, 200, 1000, len(WHOLE) // 2, len(WHOLE) - 5, len(WHOLE) - 1])
def test_a_record_that_was_cut_is_an_error_of_ours(length: int) -> None:
    with pytest.raises(
        InternalError, match=rf"cannot read what a job on the device wrote; got {length} bytes"
    ):
        Record.from_bytes(WHOLE[:length])


def test_a_record_with_a_changed_byte_is_read_or_an_error_of_ours() -> None:
    failed = 0
    for place in range(0, len(WHOLE), 7):
        changed = bytearray(WHOLE)
        changed[place] ^= 0xFF
        try:
            Record.from_bytes(bytes(changed))
        except InternalError:
            failed += 1
    assert failed > len(WHOLE) // 7 // 2


def test_something_else_is_an_error_of_ours() -> None:
    with pytest.raises(InternalError, match="a record"):
        Record.from_bytes(b"Killed\n" * 100)


def test_what_a_device_lacks_is_installed_without_edgedet() -> None:
    header = error_header(MissingExtraError("no tflite", fix='pip install "edgedet[tflite]"'))
    assert error_from(header).fix == 'pip install "edgedet[tflite]"'
    fix = error_from(header, "ssh://pi").fix
    assert fix == "install ai-edge-litert flatbuffers for its Python, or leave it out with --runtimes"
