"""An ONNX file with its integer tensors as further outputs: they are added to its bytes, without a parser.

Protobuf merges a message that comes twice, so outputs are appended as a second graph that holds nothing else
(https://protobuf.dev/programming-guides/encoding, "Last One Wins"). Field numbers are those of `onnx.proto`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgedet_runtimes.ort_external_data import message_fields

_GRAPH = 7
_NODE, _INITIALIZER, _OUTPUT = 1, 5, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_TYPE = 1, 2, 4
_TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_INT32S, _TENSOR_NAME, _TENSOR_RAW = 2, 4, 5, 8, 9
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _ELEMENT_TYPE = 1, 2, 1, 1
_BYTES = 2

# TensorProto.DataType
_DTYPES: Mapping[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("u1"),
    3: np.dtype("i1"),
    4: np.dtype("<u2"),
    5: np.dtype("<i2"),
}


@dataclass(frozen=True, slots=True)
class Quantized:
    """What one QuantizeLinear gives.

    Attributes:
        tensor: Name of its output.
        scale: One step.
        zero_point: The integer of 0.
    """

    tensor: str
    scale: float
    zero_point: int


def with_integer_outputs(model: bytes) -> tuple[bytes, tuple[Quantized, ...]]:
    """The model with every quantized activation as an output, and what they are, in the order of the file.

    Raises:
        ValueError: The bytes are not a protobuf message.
    """
    graph = next(value for number, value in _fields(memoryview(model)) if number == _GRAPH)
    constants = dict(_constants(graph))
    found, outputs = [], b""
    for number, node in _fields(graph):
        if number != _NODE:
            continue
        texts = [(n, bytes(value).decode()) for n, value in _fields(node) if n <= _NODE_TYPE]
        read, given = ([text for n, text in texts if n == field] for field in (_NODE_INPUT, _NODE_OUTPUT))
        if (_NODE_TYPE, "QuantizeLinear") not in texts or read[0] in constants:
            continue
        (_, scale), (element_type, zero_point) = constants[read[1]], constants[read[2]]
        found.append(Quantized(given[0], float(scale), int(zero_point)))
        outputs += _message(_OUTPUT, _value_info(given[0], element_type))
    return model + _message(_GRAPH, outputs), tuple(found)


def _constants(graph: memoryview) -> Iterator[tuple[str, tuple[int, np.generic]]]:
    """Initializers of one element: name, data type and value; the values of others do not matter here."""
    for number, tensor in _fields(graph):
        if number != _INITIALIZER:
            continue
        fields: dict[int, Any] = dict(message_fields(tensor))
        element_type = fields[_TENSOR_TYPE]
        dtype = _DTYPES.get(element_type, np.dtype("u1"))
        raw = bytes(fields.get(_TENSOR_RAW, fields.get(_TENSOR_FLOATS, b"")))
        value = np.frombuffer(raw, dtype, 1)[0] if len(raw) >= dtype.itemsize else _packed(fields, dtype)
        yield bytes(fields[_TENSOR_NAME]).decode(), (element_type, value)


def _packed(fields: Mapping[int, Any], dtype: np.dtype[Any]) -> np.generic:
    """The first element of integers that are not raw: a varint, packed or not, 0 where there is none."""
    given = fields.get(_TENSOR_INT32S, 0)
    if isinstance(given, memoryview):
        (_, given), *_ = message_fields(memoryview(b"\x08" + bytes(given)))
    found: np.generic = np.int64(given).astype(dtype)
    return found


def _value_info(name: str, element_type: int) -> bytes:
    tensor_type = _key(_ELEMENT_TYPE, 0) + _varint(element_type)
    return _message(_VALUE_NAME, name.encode()) + _message(_VALUE_TYPE, _message(_TYPE_TENSOR, tensor_type))


def _message(number: int, content: bytes) -> bytes:
    return _key(number, _BYTES) + _varint(len(content)) + content


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields that have a length."""
    return ((n, value) for n, value in message_fields(message) if isinstance(value, memoryview))
