"""Nodes and constants of an ONNX file, read without the onnx package, which a base install has not.

Field numbers are those of `onnx.proto`; a message that comes twice is merged, as protobuf has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedet_runtimes.ort_external_data import message_fields

_MODEL_GRAPH, _MODEL_FUNCTION = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _FUNCTION_NODE = 1, 5, 7
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_TYPE, _NODE_ATTRIBUTE = 1, 2, 3, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TENSOR, _ATTRIBUTE_INTS = 1, 3, 5, 8
_ATTRIBUTE_GRAPHS = {6, 11}
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_INT32S, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 5, 8, 9
_TENSOR_FLOATS, _TENSOR_INT64S, _TENSOR_DOUBLES = 4, 7, 10
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14

# TensorProto.DataType, where it has a dtype in NumPy.
DTYPES: Mapping[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("u1"),
    3: np.dtype("i1"),
    4: np.dtype("<u2"),
    5: np.dtype("<i2"),
    6: np.dtype("<i4"),
    7: np.dtype("<i8"),
    10: np.dtype("<f2"),
    11: np.dtype("<f8"),
}


class Message:
    """The fields of a protobuf message.

    Args:
        parts: Its bytes; where it comes several times, all of them.
    """

    def __init__(self, *parts: memoryview) -> None:
        self._fields: dict[int, list[memoryview | int]] = {}
        for part in parts:
            for number, value in message_fields(part):
                self._fields.setdefault(number, []).append(value)

    def __contains__(self, number: int) -> bool:
        return number in self._fields

    def parts(self, number: int) -> list[memoryview]:
        """A field that has a length, as often as it is there."""
        return [value for value in self._fields.get(number, ()) if isinstance(value, memoryview)]

    def text(self, number: int) -> str:
        """A text, or ""."""
        found = self.parts(number)
        return bytes(found[-1]).decode() if found else ""

    def texts(self, number: int) -> tuple[str, ...]:
        """A repeated text."""
        return tuple(bytes(part).decode() for part in self.parts(number))

    def integers(self, number: int) -> list[int]:
        """A repeated integer, packed or not."""
        return [_signed(one) for value in self._fields.get(number, ()) for one in _unpacked(value)]


def _unpacked(value: memoryview | int) -> Iterator[int]:
    """One integer, or those of a packed field: each behind the key of field 1, it is a message."""
    if isinstance(value, int):
        yield value
        return
    number = shift = 0
    for byte in value:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0


def _signed(value: int) -> int:
    """A negative number is written in 64 bits of two's complement."""
    return value - 2**64 if value >= 2**63 else value


class Tensor:
    """A constant; its values are read when they are asked for."""

    def __init__(self, part: memoryview) -> None:
        self._fields = Message(part)
        self.name = self._fields.text(_TENSOR_NAME)
        self.element_type = next(iter(self._fields.integers(_TENSOR_TYPE)), 0)

    def array(self) -> NDArray[Any] | None:
        """Its values; None where they lie in another file, or are of a type without a dtype or cut short."""
        fields, dtype = self._fields, DTYPES.get(self.element_type)
        if dtype is None or _TENSOR_EXTERNAL in fields or any(fields.integers(_TENSOR_LOCATION)):
            return None
        shape = tuple(fields.integers(_TENSOR_DIMS))
        values = self._values(dtype)
        return values.reshape(shape) if values.size == int(np.prod(shape, dtype=np.int64)) else None

    def _values(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Flat, from whichever field holds them."""
        fields = self._fields
        if _TENSOR_RAW in fields:
            return np.frombuffer(bytes(fields.parts(_TENSOR_RAW)[-1]), dtype)
        if dtype.kind == "f" and dtype.itemsize != 2:
            number = _TENSOR_FLOATS if dtype.itemsize == 4 else _TENSOR_DOUBLES
            return np.frombuffer(b"".join(map(bytes, fields.parts(number))), dtype)
        integers = fields.integers(_TENSOR_INT64S if dtype.itemsize == 8 else _TENSOR_INT32S)
        if dtype.kind == "f":  # float16 is written as the integers of its bits
            return np.array(integers, np.uint16).view(np.float16)
        return np.array(integers, np.int64).astype(dtype)


class Node:
    """An operator, with the names of the tensors that it reads and gives."""

    def __init__(self, part: memoryview) -> None:
        self._fields = Message(part)
        self.name, self.type = self._fields.text(_NODE_NAME), self._fields.text(_NODE_TYPE)
        self.inputs, self.outputs = self._fields.texts(_NODE_INPUT), self._fields.texts(_NODE_OUTPUT)

    @cached_property
    def attributes(self) -> Mapping[str, Message]:
        """By name."""
        found = map(Message, self._fields.parts(_NODE_ATTRIBUTE))
        return {attribute.text(_ATTRIBUTE_NAME): attribute for attribute in found}

    def integer(self, name: str, default: int) -> int:
        """An attribute that is an integer."""
        return next(iter(self.integers(name, _ATTRIBUTE_INT)), default)

    def integers(self, name: str, field: int = _ATTRIBUTE_INTS) -> list[int]:
        """An attribute that is a list of integers; empty where it is not given."""
        return self.attributes[name].integers(field) if name in self.attributes else []

    def tensor(self, name: str) -> Tensor | None:
        """An attribute that is a tensor."""
        parts = self.attributes[name].parts(_ATTRIBUTE_TENSOR) if name in self.attributes else []
        return Tensor(parts[-1]) if parts else None

    @property
    def graphs(self) -> list[memoryview]:
        """The graphs that it runs, such as the branches of an If."""
        return [
            part
            for attribute in self.attributes.values()
            for field in _ATTRIBUTE_GRAPHS
            for part in attribute.parts(field)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Nodes that see each other's tensors.

    Attributes:
        nodes: In the order of the file, without those of graphs within nodes.
        makers: Node by the tensor that it gives, with those of graphs around this one.
        constants: Initializers by name, likewise.
        is_function: It is called from elsewhere, so that its inputs may be anything.
    """

    nodes: Sequence[Node]
    makers: Mapping[str, Node]
    constants: Mapping[str, Tensor]
    is_function: bool = False

    @staticmethod
    def of(
        nodes: Sequence[Node],
        constants: Mapping[str, Tensor],
        around: Graph | None = None,
        *,
        is_function: bool = False,
    ) -> Graph:
        """A graph, or one within a node of another, which is of a function where that one is."""
        makers = {tensor: node for node in nodes for tensor in node.outputs if tensor}
        if around is None:
            return Graph(nodes, makers, constants, is_function)
        merged = {**around.makers, **makers}
        return Graph(nodes, merged, {**around.constants, **constants}, around.is_function)


def read_nodes(model: bytes) -> list[Node]:
    """The nodes of a model's graph, in the order of the file.

    Raises:
        ValueError: The bytes are not a protobuf message.
    """
    graph = Message(*Message(memoryview(model)).parts(_MODEL_GRAPH))
    return [Node(part) for part in graph.parts(_GRAPH_NODE)]


def read_graphs(model: bytes) -> Iterator[Graph]:
    """The graph of a model, those within its nodes, and its functions.

    Raises:
        ValueError: The bytes are not a protobuf message.
    """
    fields = Message(memoryview(model))
    yield from _with_inner(fields.parts(_MODEL_GRAPH), None)
    for part in fields.parts(_MODEL_FUNCTION):
        nodes = [Node(node) for node in Message(part).parts(_FUNCTION_NODE)]
        function = Graph.of(nodes, {}, is_function=True)
        yield function
        yield from _inner(function)


def _with_inner(parts: Sequence[memoryview], around: Graph | None) -> Iterator[Graph]:
    fields = Message(*parts)
    constants = {tensor.name: tensor for tensor in map(Tensor, fields.parts(_GRAPH_INITIALIZER))}
    graph = Graph.of([Node(part) for part in fields.parts(_GRAPH_NODE)], constants, around)
    yield graph
    yield from _inner(graph)


def _inner(graph: Graph) -> Iterator[Graph]:
    for node in graph.nodes:
        for part in node.graphs:
            yield from _with_inner([part], graph)
