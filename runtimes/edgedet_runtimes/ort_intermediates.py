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
    10: np.dtype("<f2"),
}
# Of the zero point where QuantizeLinear has none.
_UINT8 = 2


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
        ValueError: The bytes are not a protobuf message, or a scale or zero point is no initializer of one
            element and a type that integers are quantized with.
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
        _, scale = _element(constants, read[1])
        element_type, zero_point = _element(constants, read[2]) if len(read) > 2 else (_UINT8, 0.0)
        found.append(Quantized(given[0], scale, int(zero_point)))
        outputs += _message(_OUTPUT, _value_info(given[0], element_type))
    return model + _message(_GRAPH, outputs), tuple(found)


def _constants(graph: memoryview) -> Iterator[tuple[str, memoryview]]:
    """Initializers by name."""
    for number, tensor in _fields(graph):
        if number == _INITIALIZER:
            yield next(bytes(v).decode() for n, v in _fields(tensor) if n == _TENSOR_NAME), tensor


def _element(constants: Mapping[str, memoryview], name: str) -> tuple[int, float]:
    """Data type and value of an initializer of one element."""
    fields: dict[int, Any] = {}
    for number, value in message_fields(constants.get(name, memoryview(b""))):
        fields.setdefault(number, value)
    element_type = int(fields.get(_TENSOR_TYPE, 0))
    if element_type not in _DTYPES:
        raise ValueError(f"{name!r} is no initializer of a type that integers are quantized with")
    dtype = _DTYPES[element_type]
    raw = bytes(fields.get(_TENSOR_RAW, fields.get(_TENSOR_FLOATS, b"")))
    if len(raw) >= dtype.itemsize:
        return element_type, float(np.frombuffer(raw, dtype, 1)[0])
    given = fields.get(_TENSOR_INT32S, 0)
    if isinstance(given, memoryview):  # packed: one varint behind the other
        _, given = next(iter(message_fields(memoryview(_key(_TENSOR_INT32S, 0) + bytes(given)))))
    # A negative number is written in 64 bits of two's complement.
    return element_type, float(given - 2**64 if given >= 2**63 else given)


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
