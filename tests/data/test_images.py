"""Files of every kind, good and broken, become pixels or an error that names them."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgedet.data import read_image
from edgedet.data.headers import read_header
from edgedet.data.images import list_images
from edgedet.errors import DataError

FORMATS = [".jpg", ".png", ".bmp", ".tif", ".webp"]


def picture(height: int = 24, width: int = 40) -> np.ndarray:
    """Dark but for a red top left quarter."""
    image = np.full((height, width, 3), 30, np.uint8)
    image[: height // 2, : width // 2] = (0, 0, 220)
    return image


def encoded(suffix: str, image: np.ndarray) -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """A JPEG with an EXIF segment of one tag: 0x0112, the orientation."""
    tiff = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_read_as_bgr(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    path.write_bytes(encoded(suffix, picture()))
    image = read_image(path)
    assert (image.dtype, image.shape) == (np.uint8, (24, 40, 3))
    np.testing.assert_allclose(image[3, 3], (0, 0, 220), atol=12)
    np.testing.assert_allclose(image[20, 35], (30, 30, 30), atol=12)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("size_hw", [(1, 1), (37, 5), (200, 311)])
def test_the_size_in_the_header_is_the_size_of_the_picture(suffix: str, size_hw: tuple[int, int]) -> None:
    header = read_header(encoded(suffix, picture(*size_hw)))
    assert header is not None
    assert header.size_hw == size_hw
    assert header.complete


@pytest.mark.parametrize("flags", [[cv2.IMWRITE_WEBP_QUALITY, 101], [cv2.IMWRITE_WEBP_QUALITY, 50]])
def test_both_kinds_of_webp_are_read(tmp_path: Path, flags: list[int]) -> None:
    path = tmp_path / "image.webp"
    path.write_bytes(cv2.imencode(".webp", picture(), flags)[1].tobytes())
    assert read_image(path).shape == (24, 40, 3)


@pytest.mark.parametrize(
    ("orientation", "size_hw", "red_yx"),
    [(1, (24, 40), (3, 3)), (3, (24, 40), (20, 36)), (6, (40, 24), (3, 20)), (8, (40, 24), (36, 3))],
)
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int, size_hw, red_yx) -> None:
    path = tmp_path / "turned.jpg"
    path.write_bytes(with_orientation(encoded(".jpg", picture()), orientation))
    image = read_image(path)
    assert image.shape[:2] == size_hw
    np.testing.assert_allclose(image[red_yx], (0, 0, 220), atol=12)


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    path.write_bytes(encoded(".png", np.arange(64, dtype=np.uint8).reshape(8, 8)))
    image = read_image(path)
    np.testing.assert_array_equal(image, np.repeat(np.arange(64, dtype=np.uint8).reshape(8, 8, 1), 3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep{suffix}"
    deep = np.linspace(0, 65535, 300).astype(np.uint16).reshape(10, 10, 3)
    path.write_bytes(encoded(suffix, deep))
    np.testing.assert_allclose(read_image(path), deep / 257, atol=1)  # png cuts, tiff rounds


def test_alpha_is_dropped_and_not_composited(tmp_path: Path) -> None:
    path = tmp_path / "glass.png"
    pixels = np.dstack([picture(), np.zeros((24, 40), np.uint8)])
    path.write_bytes(encoded(".png", pixels))
    np.testing.assert_array_equal(read_image(path), picture())


@pytest.mark.parametrize(
    "name", ["señor Müller 图像.png", "a b  c.png", "ünïcödé/日本 語.png", "png inside.jpg", "none"]
)
def test_names_do_not_matter(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(".png", picture()))
    np.testing.assert_array_equal(read_image(str(path)), picture())


@pytest.mark.parametrize("size_hw", [(1, 1), (20, 20_000), (20_000, 20)])
def test_extreme_shapes_are_read(tmp_path: Path, size_hw: tuple[int, int]) -> None:
    path = tmp_path / "long.png"
    path.write_bytes(encoded(".png", np.zeros((*size_hw, 3), np.uint8)))
    assert read_image(path).shape == (*size_hw, 3)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.7, 0.98])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, suffix: str, fraction: float, capfd) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
    data = encoded(suffix, noise)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(DataError, match=f"cut{suffix}"):
        read_image(path)
    assert capfd.readouterr().err == ""


def test_a_cut_jpeg_with_a_whole_thumbnail_is_refused(tmp_path: Path) -> None:
    thumbnail = encoded(".jpg", picture())
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    data = encoded(".jpg", picture(100, 100))
    data = data[:2] + segment + data[2:]
    whole, cut = tmp_path / "whole.jpg", tmp_path / "cut.jpg"
    whole.write_bytes(data)
    cut.write_bytes(data[:-200])
    assert read_image(whole).shape == (100, 100, 3)
    with pytest.raises(DataError, match="cut or damaged"):
        read_image(cut)


def test_a_png_with_a_wrong_checksum_is_refused_quietly(tmp_path: Path, capfd) -> None:
    data = bytearray(encoded(".png", np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)))
    data[len(data) // 2] ^= 0xFF
    path = tmp_path / "flipped.png"
    path.write_bytes(data)
    with pytest.raises(DataError, match="cut or damaged"):
        read_image(path)
    assert capfd.readouterr().err == ""


def test_bytes_after_the_end_of_a_jpeg_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "trailer.jpg"
    path.write_bytes(encoded(".jpg", picture()) + b"maker notes" * 10)
    assert read_image(path).shape == (24, 40, 3)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.jpg", b"", "got 0 bytes"),
        ("text.jpg", b"this is not an image\n" * 40, "bytes that start with 74 68 69 73"),
        ("page.png", b"<!doctype html><title>404</title>", "bytes that start with"),
        ("short.png", b"\x89PNG\r\n\x1a\n", "bytes that start with 89 50"),
        ("two.jpg", b"\xff\xd8\xff", "bytes that start with ff d8"),
        ("film.gif", b"GIF89a" + bytes(100), "expected a JPEG, PNG, BMP, TIFF or WebP file"),
    ],
)
def test_what_is_no_image_is_refused_by_name(
    tmp_path: Path, name: str, data: bytes, message: str, capfd
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_image(path)
    assert name in str(caught.value)
    assert "Fix:" in str(caught.value)
    assert capfd.readouterr().err == ""


def test_random_bytes_behind_a_good_start_never_escape_as_another_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "mutant"
    for suffix in FORMATS:
        good = np.frombuffer(encoded(suffix, picture()), np.uint8)
        for _ in range(12):
            bad = good.copy()
            at = rng.integers(0, len(bad), 8)
            bad[at] = rng.integers(0, 256, 8)
            path.write_bytes(bad.tobytes())
            try:
                image = read_image(path)
            except DataError:
                continue
            assert (image.dtype, image.ndim) == (np.uint8, 3)


@pytest.mark.parametrize("size_wh", [(60_000, 60_000), (2**31 - 1, 1), (65_501, 1)])
def test_a_header_that_asks_for_too_much_is_refused_before_decoding(tmp_path: Path, size_wh) -> None:
    path = tmp_path / "bomb.png"
    header = struct.pack(">IIBBBBB", *size_wh, 8, 2, 0, 0, 0)
    chunks = (
        png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(99))) + png_chunk(b"IEND", b"")
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    with pytest.raises(DataError, match="too large to decode"):
        read_image(path)


def test_a_size_of_zero_is_refused(tmp_path: Path) -> None:
    data = encoded(".bmp", picture())
    path = tmp_path / "flat.bmp"
    path.write_bytes(data[:18] + struct.pack("<i", 0) + data[22:])
    with pytest.raises(DataError, match=r"flat\.bmp"):
        read_image(path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got no such file"):
        read_image(tmp_path / "missing.jpg")
    with pytest.raises(DataError, match="got a folder"):
        read_image(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match="not a regular file"):
        read_image(tmp_path / "pipe.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "locked.png"
    path.write_bytes(encoded(".png", picture()))
    path.chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        read_image(path)


def test_images_are_listed_by_suffix_and_sorted(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", ".hidden.jpg", "notes.txt", "c.tiff"):
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "folder.jpg" / "d.webp").touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.JPG", "c.tiff"]
    assert [path.name for path in list_images(tmp_path, recursive=True)] == [
        "a.png",
        "b.JPG",
        "c.tiff",
        "d.webp",
    ]


@pytest.mark.parametrize("folder", ["bccd/JPEGImages", "cards/train", "coco128/images", "media"])
def test_real_photos_are_the_pixels_that_opencv_reads(test_data: Path, folder: str) -> None:
    for path in list_images(test_data / "data" / folder, recursive=True)[::9]:
        np.testing.assert_array_equal(read_image(path), cv2.imread(str(path)))
