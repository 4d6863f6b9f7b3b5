"""What the first bytes of an image file say, before a decoder is trusted with it.

OpenCV allocates what a header asks for, up to 3 GB, and OpenCV 4 fills the missing part of a cut JPEG with
grey without an error. So sizes are looked up here first, and for JPEG and PNG whether the file is whole; the
decoders of the other formats refuse a cut file. Formats that are not listed are not decoded at all.

Sources: ITU-T T.81 annex B (JPEG), PNG specification sections 5 and 11, TIFF 6.0 section 2, RFC 9649 (WebP),
and the BITMAPFILEHEADER and BITMAPINFOHEADER structures (BMP).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

FORMATS = "JPEG, PNG, BMP, TIFF or WebP"

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257


@dataclass(frozen=True, slots=True)
class Header:
    """Size as stored (before EXIF rotation), and whether the file is whole, as far as its format tells."""

    size_hw: tuple[int, int]
    complete: bool


def read_header(data: bytes) -> Header | None:
    """The header of an image file's bytes; None for another format or a senseless header."""
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(data)
        if data.startswith(b"BM"):
            return _bmp(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
        if data.startswith((b"II*\0", b"MM\0*")):
            return _tiff(data)
    except (struct.error, IndexError):
        return None
    return None


def _jpeg(data: bytes) -> Header | None:
    size_hw, position = (0, 0), 2
    while data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in _WITHOUT_LENGTH:
            position += 2
        else:
            (length,) = struct.unpack_from(">H", data, position + 2)
            if marker in _START_OF_FRAME:
                size_hw = struct.unpack_from(">HH", data, position + 5)
            position += 2 + length
            if marker == 0xDA:
                # In coded data 0xFF is followed by 0 or a restart marker, so this finds the picture's own end
                # and not that of a thumbnail, which lies in a segment before.
                return Header((size_hw[0], size_hw[1]), data.find(b"\xff\xd9", position) >= 0)
    return None


def _png(data: bytes) -> Header:
    width, height = struct.unpack_from(">II", data, 16)
    view, position = memoryview(data), 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind, end = data[position + 4 : position + 8], position + 8 + length
        critical = kind[:1].isupper()
        if critical and view[end : end + 4] != struct.pack(">I", zlib.crc32(view[position + 4 : end])):
            break
        if kind == b"IEND":
            return Header((height, width), True)
        position = end + 4
    return Header((height, width), False)


def _bmp(data: bytes) -> Header:
    (header_size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", data, 18)
    return Header((abs(height), width), True)  # a negative height means that the top row comes first


def _webp(data: bytes) -> Header | None:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header((height & 0x3FFF, width & 0x3FFF), True)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header((((bits >> 14) & 0x3FFF) + 1, (bits & 0x3FFF) + 1), True)
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        return Header((int.from_bytes(data[27:30], "little") + 1, width), True)
    return None


def _tiff(data: bytes) -> Header | None:
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, directory)
    found = {}
    for index in range(entries):
        at = directory + 2 + 12 * index
        tag, kind = struct.unpack_from(order + "HH", data, at)
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT):
            (found[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + 8)
    if len(found) != 2:
        return None
    return Header((found[_TIFF_HEIGHT], found[_TIFF_WIDTH]), True)
