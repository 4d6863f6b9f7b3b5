"""Files that are sent to devices, known by what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from edgedet.bundle import MANIFEST, Artifact, Bundle
from edgedet.data.dataset import LabelledImage
from edgedet.files import sha256_of

PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class Blob:
    """A file to be sent, known by what it holds.

    Attributes:
        sha256: Of its bytes.
        size: How many.
        source: The bytes, or the file with them.
    """

    sha256: str
    size: int
    source: bytes | Path

    @staticmethod
    def of(source: bytes | Path) -> Blob:
        """Hash it."""
        if isinstance(source, bytes):
            return Blob(hashlib.sha256(source).hexdigest(), len(source), source)
        return Blob(sha256_of(source), source.stat().st_size, source)

    @staticmethod
    def of_image(image: LabelledImage) -> Blob:
        """Its file; of an image that has none, a PNG of its pixels."""
        if image.path.is_file():
            return Blob.of(image.path)
        return Blob.of(cv2.imencode(".png", image.image_bgr)[1].tobytes())

    def pieces(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Offsets and bytes from there on; at least one piece."""
        if isinstance(self.source, bytes):
            for offset in range(start, max(self.size, start + 1), PIECE_BYTES):
                yield offset, self.source[offset : offset + PIECE_BYTES]
            return
        with self.source.open("rb") as file:
            file.seek(start)
            offset = start
            while data := file.read(PIECE_BYTES):
                yield offset, data
                offset += len(data)
            if offset == start:
                yield offset, b""


def bundle_files(bundle: Bundle, artifacts: Sequence[Artifact], folder: str) -> dict[str, Blob]:
    """What a device needs of a bundle to run some of its artifacts, each file found whole here.

    Args:
        bundle: Here.
        artifacts: What is to run.
        folder: Where they lie there.

    Raises:
        BundleError: A file is missing or changed.
    """
    files = {f"{folder}/{MANIFEST}": Blob.of(bundle.root / MANIFEST)}
    for artifact in artifacts:
        bundle.path_of(artifact)
        for entry in artifact.files:
            files[f"{folder}/{entry.path}"] = Blob(entry.sha256, entry.bytes, bundle.root / entry.path)
    return files
