"""Read one metadata entry of a .tflite file without a schema package.

A device has the interpreter alone, and the interpreter does not show metadata. Of the file format only this
is needed (FlatBuffers internals, https://flatbuffers.dev/internals; TFLite schema.fbs): a file begins with
the offset of its root table; a table begins with the signed distance back to its vtable, which lists two
sizes and then, for every field, where in the table it is or 0; strings and vectors are reached through a
relative offset and begin with their length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_IDENTIFIER = b"TFL3"

# Fields of schema.fbs, in their order of declaration.
_MODEL_BUFFERS, _MODEL_METADATA = 4, 6
_METADATA_NAME, _METADATA_BUFFER = 0, 1
_BUFFER_DATA, _BUFFER_OFFSET, _BUFFER_SIZE = 0, 1, 2


class _Flatbuffer:
    """Bounds-checked reads; a position outside the data is a `ValueError`."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def scalar(self, code: str, position: int) -> int:
        """A little-endian integer."""
        size = struct.calcsize(code)
        if position < 0 or position + size > len(self._data):
            raise ValueError(f"the file points to byte {position} and has {len(self._data)}")
        return int(struct.unpack_from("<" + code, self._data, position)[0])

    def follow(self, position: int) -> int:
        """Where the relative offset at a position leads."""
        return position + self.scalar("I", position)

    def field(self, table: int, index: int) -> int | None:
        """Position of a table's field, None where it has its default."""
        vtable = table - self.scalar("i", table)
        entry = 4 + 2 * index
        if entry + 2 > self.scalar("H", vtable):
            return None
        offset = self.scalar("H", vtable + entry)
        return table + offset if offset else None

    def content(self, field: int) -> bytes:
        """The bytes of the string or byte vector of a field."""
        vector = self.follow(field)
        return self.slice(vector + 4, self.scalar("I", vector))

    def slice(self, start: int, length: int) -> bytes:
        """Bytes by absolute position."""
        if start < 0 or start + length > len(self._data):
            raise ValueError(
                f"the file points to bytes {start} to {start + length} and has {len(self._data)}"
            )
        return self._data[start : start + length]

    def tables(self, field: int | None) -> Iterator[int]:
        """Positions of the tables of a vector field."""
        if field is None:
            return
        vector = self.follow(field)
        for index in range(self.scalar("I", vector)):
            yield self.follow(vector + 4 + 4 * index)


def read_metadata(data: bytes, name: str) -> bytes | None:
    """The content of the metadata entry of that name, None where the model has none.

    Raises:
        ValueError: The data is not a TFLite flatbuffer, or points outside itself.
    """
    if data[4:8] != _IDENTIFIER:
        raise ValueError(f"the file does not begin as a TFLite flatbuffer ({data[:8].hex(' ') or 'empty'})")
    file = _Flatbuffer(data)
    model = file.follow(0)
    for entry in file.tables(file.field(model, _MODEL_METADATA)):
        title, number = file.field(entry, _METADATA_NAME), file.field(entry, _METADATA_BUFFER)
        if title is not None and file.content(title) == name.encode():
            return _buffer(file, model, 0 if number is None else file.scalar("I", number))
    return None


def _buffer(file: _Flatbuffer, model: int, index: int) -> bytes:
    for number, table in enumerate(file.tables(file.field(model, _MODEL_BUFFERS))):
        if number == index:
            inline = file.field(table, _BUFFER_DATA)
            if inline is not None:
                return file.content(inline)
            offset, size = file.field(table, _BUFFER_OFFSET), file.field(table, _BUFFER_SIZE)
            if offset is None or size is None:
                return b""
            return file.slice(file.scalar("Q", offset), file.scalar("Q", size))
    raise ValueError(f"the file names buffer {index} and has none of that number")
