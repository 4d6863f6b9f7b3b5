"""The part of edgedet that runs on a device, as one archive."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# What a device has no use for: it needs torch, or a person.
_LEFT_OUT = (
    "edgedet/cli",
    "edgedet/models",
    "edgedet/recommend",
    "edgedet/report",
    "edgedet/training",
    "edgedet/weights",
    "edgedet_runtimes/eager.py",
)
_PACKAGES = ("edgedet", "edgedet_runtimes")
_SUFFIXES = (".py", ".toml")


@cache
def code_archive() -> bytes:
    """A zip archive, the same bytes for the same code."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in sorted(_files()):
            archive.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _files() -> Iterator[tuple[str, Path]]:
    for package in _PACKAGES:
        found = importlib.util.find_spec(package)
        assert found is not None
        assert found.origin is not None
        root = Path(found.origin).parent
        for path in root.rglob("*"):
            name = f"{package}/{path.relative_to(root).as_posix()}"
            if path.suffix in _SUFFIXES and not name.startswith(_LEFT_OUT):
                yield name, path
