"""Small data sets that are written for a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

# name, x1, y1, x2, y2
Box = tuple[str, object, object, object, object]


@pytest.fixture
def put_image() -> Callable[..., Path]:
    """Writes a PNG of a size, making its folders."""

    def put(path: Path, height: int = 60, width: int = 80) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", np.full((height, width, 3), 90, np.uint8))[1].tobytes())
        return path

    return put


@pytest.fixture
def plant(tmp_path: Path, put_image: Callable[..., Path]) -> Callable[..., Path]:
    """Writes the files of a data set: an image at a name that ends in .png, the given text at every other."""

    def write(files: Mapping[str, str], encoding: str = "utf-8") -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".png":
                put_image(path)
            else:
                path.write_text(text, encoding)
        return tmp_path

    return write


@pytest.fixture
def voc_xml() -> Callable[..., str]:
    """The text of a VOC annotation."""

    def text(
        boxes: Sequence[Box] = (), *, size_hw: tuple[int, int] | None = (60, 80), extra: str = ""
    ) -> str:
        keys = ("xmin", "ymin", "xmax", "ymax")
        objects = "".join(
            f"<object><name>{name}</name><bndbox>"
            + "".join(f"<{key}>{value}</{key}>" for key, value in zip(keys, corners, strict=True))
            + f"</bndbox>{extra}</object>"
            for name, *corners in boxes
        )
        size = f"<size><height>{size_hw[0]}</height><width>{size_hw[1]}</width></size>" if size_hw else ""
        return f"<annotation>{size}{objects}</annotation>"

    return text
