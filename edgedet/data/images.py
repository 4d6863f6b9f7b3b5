"""Image files to pixels: the one place where files that come from anywhere are decoded.

The pixels are those of `cv2.imread(path)`: EXIF rotation is applied, grey becomes three equal channels,
16-bit samples are scaled to 8 bits, and alpha is dropped, not composited. So a detector gives the same for a
file that was read here and for one that the caller read. Unlike with `cv2.imread`, every failure says what is
wrong with which file, and a file that ends too early is a failure.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from edgedet.data.headers import FORMATS, read_header
from edgedet.errors import DataError
from edgedet.preprocess import Image

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

# 2^27 pixels are 400 MB once decoded: more than any camera's, less than what a few hundred bytes of PNG can
# ask for.
MAX_PIXELS = 2**27
MAX_SIDE = 65_500
MAX_BYTES = 2**28

# Where OpenCV 5 has its log level, and OpenCV 4.
_LOG = getattr(cv2.utils, "logging", cv2)


def read_image(path: Path | str) -> Image:
    """Read an image file.

    Args:
        path: A JPEG, PNG, BMP, TIFF or WebP file, recognised by its contents; the name may end in anything.

    Returns:
        uint8 `[h, w, 3]`, channels blue, green, red, upright.

    Raises:
        DataError: The file is missing, empty, cut, no image, or larger than the limits of this module.
    """
    path = Path(path)
    data = _read_bytes(path)
    header = read_header(data)
    if header is None or 0 in header.size_hw:
        raise _unusable(path, f"{len(data)} bytes that start with {data[:4].hex(' ')}", f"a {FORMATS} file")
    height, width = header.size_hw
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        raise DataError(
            f"{path} is too large to decode",
            got=f"{width}x{height} pixels",
            expected=f"at most {MAX_PIXELS // 10**6} million pixels and {MAX_SIDE} a side",
            fix="make a smaller copy or cut it into tiles",
        )
    if not header.complete:
        raise _unusable(path, f"{len(data)} bytes that are cut or damaged", "a whole file")
    image = _decode(data)
    if image is None or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise _unusable(path, "contents that the decoder rejects", f"an undamaged {FORMATS} file")
    return image


def list_images(folder: Path, *, recursive: bool = False, within: Path | None = None) -> list[Path]:
    """Files in `folder` whose name ends as images' do, sorted by path, hidden ones left out.

    Args:
        folder: Where to look.
        recursive: In its sub-folders too, also in those that are links.
        within: As in `files_below`.
    """
    found: Iterable[Path] = files_below(folder, within=within) if recursive else folder.iterdir()
    return sorted(
        path
        for path in found
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    )


def has_images(folder: Path, *, within: Path | None = None) -> bool:
    """Whether an image lies in a folder or below it; `within` as in `files_below`."""
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in files_below(folder, within=within))


def files_below(folder: Path, *, within: Path | None = None) -> Iterator[Path]:
    """Files in a folder and its sub-folders, each folder once; no hidden ones.

    Folders come before links to folders, so that a file has the path of its folder.

    Args:
        folder: Where to look.
        within: Links to folders below this one are followed, no others; by default `folder` itself.
    """
    for place, is_followed in _places_below(folder, within or folder):
        if is_followed:
            names = sorted(entry.name for entry in _entries(place) if not _is_folder(entry))
            yield from (place / name for name in names)


def links_out(folder: Path, *, within: Path) -> list[Path]:
    """Links in a folder, or below it, to folders that are not below `within`."""
    return [place for place, is_followed in _places_below(folder, within) if not is_followed]


def _places_below(folder: Path, within: Path) -> Iterator[tuple[Path, bool]]:
    """A folder and those below it, and whether their files belong to it: those of links out do not."""
    start, limit = Path(os.path.realpath(folder)), Path(os.path.realpath(within))
    seen: set[Path] = set()
    links = deque([folder])
    while links:
        link = links.popleft()
        real = Path(os.path.realpath(link))
        if not real.is_relative_to(limit):
            yield link, False
            continue
        if real != start and start.is_relative_to(real):  # a link to where the folder itself lies
            continue
        folders = [link]
        while folders:
            place = folders.pop()
            real = Path(os.path.realpath(place))
            if real in seen:
                continue
            seen.add(real)
            yield place, True
            inner = sorted((entry for entry in _entries(place) if _is_folder(entry)), key=lambda e: e.name)
            links.extend(place / entry.name for entry in inner if entry.is_symlink())
            folders.extend(place / entry.name for entry in reversed(inner) if not entry.is_symlink())


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder and not hidden; nothing where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _read_bytes(path: Path) -> bytes:
    if not path.is_file():  # also keeps pipes and devices, which would block, from being opened
        got = "a folder" if path.is_dir() else "no such file" if not path.exists() else "not a regular file"
        raise DataError(
            f"cannot read the image {path}", got=got, expected=f"a {FORMATS} file", fix="check the path"
        )
    try:
        size = path.stat().st_size
        data = b"" if size > MAX_BYTES else path.read_bytes()
    except OSError as exc:
        raise DataError(
            f"cannot read the image {path}",
            got=exc.strerror or type(exc).__name__,
            expected="a file that can be read",
            fix="check its permissions and the disk",
        ) from exc
    if not data:
        raise _unusable(path, f"{size} bytes", f"a {FORMATS} file of 1 to {MAX_BYTES} bytes")
    return data


def _decode(data: bytes) -> Image | None:
    level = _LOG.getLogLevel()
    _LOG.setLogLevel(0)  # the error of the caller says more than OpenCV's lines on stderr
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)  # type: ignore[return-value]
    except cv2.error:
        return None
    finally:
        _LOG.setLogLevel(level)


def _unusable(path: Path, got: str, expected: str) -> DataError:
    return DataError(
        f"cannot read the image {path}", got=got, expected=expected, fix="replace the file or remove it"
    )
