"""Label files: in `labels/` where images are in `images/`, in `labels/` of the root, or beside the images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from edgedet.data.images import files_below
from edgedet.data.text import decode
from edgedet.data.yolo_layout import NAME_FILES, child
from edgedet.data.yolo_rows import is_row

IMAGE_FOLDERS = frozenset({"images", "jpegimages"})
LABELS = "labels"


class LabelFinder:
    """Image files to label files.

    Args:
        root: Of the data set.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._texts: dict[Path, dict[str, Path]] = {}
        self._folders: dict[Path, list[Path]] = {}
        self._used: set[Path] = set()

    def find(self, image: Path) -> Path | None:
        """The label file of an image, None where there is none."""
        found = (self._in(folder).get(image.stem) for folder in self._label_folders(image.parent))
        path = next(filter(None, found), None)
        if path is not None:
            self._used.add(path)
        return path

    def has_folder(self, folder: Path) -> bool:
        """Whether a folder of images has one of labels apart from it."""
        return len(self._label_folders(folder)) > 1

    def orphans(self, folder: Path) -> Iterator[Path]:
        """Label files of a folder that were found for no image; those beside images must look like one."""
        *apart, beside = self._label_folders(folder)
        for path in sorted({path for place in apart for path in files_below(place)}):
            if _is_text(path) and path not in self._used:
                self._used.add(path)
                yield path
        for path in files_below(beside):
            if (
                _is_text(path)
                and path not in self._used
                and not _is_below(path, apart)
                and looks_like_labels(path)
            ):
                yield path

    def _in(self, folder: Path) -> dict[str, Path]:
        if folder not in self._texts:
            with os.scandir(folder) as entries:
                paths = [Path(entry.path) for entry in entries]
            self._texts[folder] = {path.stem: path for path in paths if _is_text(path)}
        return self._texts[folder]

    def _label_folders(self, folder: Path) -> list[Path]:
        """Where labels of a folder's images may be, the likeliest first; the folder itself is the last."""
        if folder not in self._folders:
            options = [*self._apart(folder), child(folder, LABELS)]
            apart = [place for place in options if place is not None and place.is_dir() and place != folder]
            self._folders[folder] = [*dict.fromkeys(apart), folder]
        return self._folders[folder]

    def _apart(self, folder: Path) -> Iterator[Path | None]:
        try:
            parts = folder.relative_to(self._root).parts
        except ValueError:
            return
        names = [part.casefold() for part in parts]
        for place in range(len(parts) - 1, -1, -1):
            if names[place] in IMAGE_FOLDERS:
                yield self._below(parts[:place], parts[place + 1 :])
                break
        else:
            yield self._below((), parts)

    def _below(self, before: tuple[str, ...], after: tuple[str, ...]) -> Path | None:
        place: Path | None = self._root.joinpath(*before)
        for part in (LABELS, *after):
            place = child(place, part) if place is not None else None
        return place


def looks_like_labels(path: Path) -> bool:
    """Whether the first row of a text file could be one of labels, unlike captions and lists."""
    try:
        with path.open("rb") as file:
            text = decode(file.read(4096))
    except (OSError, UnicodeDecodeError):
        return False
    lines = [line for line in text.splitlines() if line.strip()]
    return bool(lines) and is_row(lines[0])


def _is_text(path: Path) -> bool:
    return path.suffix.lower() == ".txt" and path.name.lower() not in NAME_FILES


def _is_below(path: Path, folders: list[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
