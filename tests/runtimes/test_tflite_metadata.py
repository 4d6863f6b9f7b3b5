from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedet_runtimes.tflite_metadata import read_metadata

passing_model = pytest.importorskip("passing_model").passing_model


@given(
    st.dictionaries(st.text(min_size=1, max_size=20), st.binary(min_size=1, max_size=300), max_size=4),
    st.text(min_size=1, max_size=20),
)
@settings(max_examples=50)
def test_what_the_schema_wrote_is_what_is_read(entries: dict[str, bytes], other: str) -> None:
    model = passing_model("float32", metadata=entries)
    for name, content in entries.items():
        assert read_metadata(model, name) == content
    assert read_metadata(model, other) == entries.get(other)


_MODEL = passing_model("float32", metadata={"edgedet.spec": b'{"a": 1}', "other": b"\0" * 40})


@given(st.integers(0, len(_MODEL)))
def test_a_file_cut_anywhere_gives_a_value_error_or_what_is_left_whole(end: int) -> None:
    try:
        assert read_metadata(_MODEL[:end], "edgedet.spec") == b'{"a": 1}'
    except ValueError as exc:
        assert str(exc)  # noqa: PT017


@given(st.lists(st.tuples(st.integers(0, len(_MODEL) - 1), st.integers(0, 255)), min_size=1, max_size=20))
@settings(max_examples=400)
def test_changed_bytes_give_a_value_error_or_bytes_and_nothing_else(changes: list[tuple[int, int]]) -> None:
    data = bytearray(_MODEL)
    for position, value in changes:
        data[position] = value
    try:
        found = read_metadata(bytes(data), "edgedet.spec")
    except ValueError:
        return
    assert found is None or isinstance(found, bytes)


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\x1c\0\0\0TFL3", b"\xff\xff\xff\xffTFL3" + b"\xff" * 64])
def test_what_is_no_model_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"the file (does not begin|points)"):
        read_metadata(data, "edgedet.spec")
