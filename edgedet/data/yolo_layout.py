"""Root, class names and splits of a YOLO data set: from its yaml, a darknet `obj.data`, or files of names.

A root may hold several of these files. Where two of them name the classes differently, the data set is
refused: class indices mean nothing without the right names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath

from edgedet.data.indexed import relative_inside
from edgedet.data.splits import family
from edgedet.data.text import read_lines
from edgedet.data.yolo_rows import Keypoints
from edgedet.data.yolo_yaml import Description, read_description
from edgedet.errors import DataError

# Files of class names, one a line; labelImg and CVAT put them beside the labels.
NAME_FILES = frozenset({"_darknet.labels", "classes.txt", "obj.names", "predefined_classes.txt"})

# The yaml that counts where several name classes.
_MAIN_YAML = frozenset({"data.yaml", "data.yml", "dataset.yaml", "dataset.yml"})

_DESCRIPTIONS = frozenset({".data", ".yaml", ".yml"})


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a data set is and what its description says.

    Attributes:
        root: The folder that everything lies in.
        names: Of the classes, by index; none where no file has them.
        splits: Folders and lists of each split, as they are written.
        keypoints: The shape of poses, where objects are poses.
    """

    root: Path
    names: tuple[str, ...] = ()
    splits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    keypoints: Keypoints | None = None

    def places(self, split: str) -> list[Path]:
        """The folders and lists of a split that are there."""
        return [place for entry in self.splits.get(split, ()) if (place := self.place(entry)) is not None]

    def place(self, entry: str) -> Path | None:
        """The folder or list that a description means, None where it is not there or leaves the root."""
        places = (existing(self.root, text) for text in _endings(self.root, entry))
        return next((place for place in places if place is not None and _is_place(place)), None)


def is_description(path: Path) -> bool:
    """Whether a file's name is one of a description."""
    return path.suffix.lower() in _DESCRIPTIONS


def layout_of(path: Path) -> Layout:
    """The layout of a root, or of the data set that a yaml or an `obj.data` describes.

    Raises:
        DataError: A description cannot be read, or two of them name the classes differently.
    """
    folder = path if path.is_dir() else path.parent
    description = _read(path) if path.is_file() else _description(folder)
    roots = [folder / description.path, folder] if path.is_file() else [folder, folder / description.path]
    layouts = [
        Layout(Path(os.path.normpath(root)), description.names, description.splits, description.keypoints)
        for root in dict.fromkeys(roots)
        if root.is_dir()
    ]
    layout = next((one for one in layouts if any(map(one.places, one.splits))), layouts[0])
    return Layout(
        layout.root,
        layout.names or _names_in_files(layout.root),
        layout.splits or _lists(layout.root),
        layout.keypoints,
    )


def child(folder: Path, name: str) -> Path | None:
    """A file or folder by its name, else the only one whose name differs in case alone."""
    if (folder / name).exists():
        return folder / name
    try:
        alike = [entry.path for entry in os.scandir(folder) if entry.name.casefold() == name.casefold()]
    except OSError:
        return None
    return Path(alike[0]) if len(alike) == 1 else None


def existing(root: Path, text: str) -> Path | None:
    """A folder or file below the root, whatever its case, None where it is not there or leaves the root."""
    try:
        place: Path | None = root
        for part in PurePosixPath(text).parts:
            place = place.parent if part == ".." and place else child(place, part) if place else None
        return place if place is not None and relative_inside(root, place) is not None else None
    except (OSError, ValueError):
        return None


def _is_place(path: Path) -> bool:
    return path.is_dir() or (path.suffix.lower() == ".txt" and path.is_file())


def _endings(root: Path, entry: str) -> Iterator[str]:
    """An entry below the root: as it is written, then without what is before the root on another machine."""
    text = entry.replace("\\", "/")
    if not text.startswith("/"):
        yield text
    elif (inside := os.path.normpath(text)).startswith(f"{root.absolute()}{os.sep}"):
        yield Path(inside).relative_to(root.absolute()).as_posix()
    parts = [part for part in text.split("/") if part not in ("", ".", "..")]
    for start in range(len(parts)):
        if len(parts) - start > 1 or len(parts) == 1 or family(PurePosixPath(parts[-1]).stem):
            yield "/".join(parts[start:])
    if root.absolute().name in parts:
        after = len(parts) - parts[::-1].index(root.absolute().name)
        yield "/".join(parts[after:]) or "."


def _read(path: Path) -> Description:
    return _read_darknet(path) if path.suffix.lower() == ".data" else read_description(path)


def _description(folder: Path) -> Description:
    """The description in a folder: the one yaml with names, else the one `obj.data`."""
    files = sorted(path for path in folder.iterdir() if is_description(path) and path.is_file())
    yamls = [(file, read_description(file)) for file in files if file.suffix.lower() != ".data"]
    named = [(file, description) for file, description in yamls if description.names]
    main = [pair for pair in named if pair[0].name.lower() in _MAIN_YAML] or named
    _check_alike([(file, description.names) for file, description in main])
    if main:
        return main[0][1]
    darknet = [file for file in files if file.suffix.lower() == ".data"]
    return _read_darknet(darknet[0]) if darknet else Description()


def _read_darknet(path: Path) -> Description:
    """A darknet description: lines of `train = data/train.txt`, `valid = …` and `names = data/obj.names`."""
    pairs = (line.partition("=") for line in read_lines(path))
    values = {key.strip(): value.strip() for key, _, value in pairs if value.strip()}
    splits: dict[str, tuple[str, ...]] = {key: (value,) for key, value in values.items() if family(key)}
    file = _listed(path.parent, values["names"]) if "names" in values else None
    return Description(tuple(read_lines(file)) if file else (), splits)


def _listed(folder: Path, text: str) -> Path | None:
    """A file that a darknet description names: below the folder, at its base name if need be."""
    parts = PurePosixPath(text.replace("\\", "/")).parts
    places = (existing(folder, "/".join(parts[start:])) for start in range(len(parts)))
    return next((place for place in places if place is not None and place.is_file()), None)


def _names_in_files(root: Path) -> tuple[str, ...]:
    files = [
        file
        for pattern in ("*", "*/*", "*/*/*")
        for file in sorted(root.glob(pattern))
        if file.name.lower() in NAME_FILES and file.is_file() and relative_inside(root, file) is not None
    ]
    named = [(file, tuple(read_lines(file))) for file in files]
    _check_alike(named)
    return max((names for _, names in named), key=len, default=())


def _check_alike(named: Sequence[tuple[Path, tuple[str, ...]]]) -> None:
    """Raise where two files name the classes differently; one may have more at the end."""
    for (first, names), (other, others) in pairwise(named):
        shared = min(len(names), len(others))
        if names[:shared] != others[:shared]:
            raise DataError(
                "two files name the classes differently",
                got=f"{', '.join(names[:5])} in {first} and {', '.join(others[:5])} in {other}",
                expected="the same names in the same order",
                fix="remove the wrong one, or give the yaml itself",
            )


def _lists(root: Path) -> dict[str, tuple[str, ...]]:
    """Lists of images in the root that are named after splits: `train.txt`."""
    files = (path for path in sorted(root.glob("*.[tT][xX][tT]")) if family(path.stem))
    return {path.stem: (path.name,) for path in files}
