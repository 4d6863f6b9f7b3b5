"""Whether an ONNX file keeps tensors in other files.

ONNX Runtime reads such files on its own, beside the model or, for a model given as bytes, in the folder
that the process is in; no version has a switch that forbids it. A base install has no onnx package to ask, so
the fields that lead to tensors are walked here. Their numbers are those of `onnx.proto`, their encoding is
protobuf's (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Iterator

# Fields of each message that lead to tensors, with the message that they hold.
_MESSAGES = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA = 13
_DATA_LOCATION = 14

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def has_external_data(model: bytes) -> bool:
    """Whether a tensor of the model lies in another file.

    Raises:
        ValueError: The bytes are not a protobuf message.
    """
    return _refers_outside(memoryview(model), "model")


def _refers_outside(data: memoryview, message: str) -> bool:
    if message == "tensor":
        return any(
            number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)
            for number, value in message_fields(data)
        )
    inner = _MESSAGES[message]
    return any(
        isinstance(value, memoryview) and _refers_outside(value, inner[number])
        for number, value in message_fields(data)
        if number in inner
    )


def message_fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Number and value of each field: the bytes of those that have a length, and integers."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if kind == _BYTES:
            length, position = _varint(data, position)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"a protobuf field of the unknown kind {kind}")
        if position + length > len(data):
            raise ValueError("the file ends within a protobuf field")
        yield number, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if position == len(data):
            raise ValueError("the file ends within a protobuf number")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a protobuf number of more than ten bytes")
