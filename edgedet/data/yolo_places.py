"""Images of the splits of a YOLO data set: folders of images and lists of images.

A split is what the description says; where that is not there, a folder of its name: `images/SPLIT`,
`SPLIT/images` or `SPLIT/` with labels beside its images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path, PurePosixPath

from edgedet.data.dataset import Summary, no_such_split
from edgedet.data.images import IMAGE_SUFFIXES, has_images, list_images
from edgedet.data.indexed import relative_inside
from edgedet.data.splits import family, same_names
from edgedet.data.text import read_lines
from edgedet.data.yolo_labels import IMAGE_FOLDERS, LABELS, LabelFinder, looks_like_labels
from edgedet.data.yolo_layout import Layout, existing

# So many images of a folder are asked for their labels to tell the format.
_PROBES = 50


@dataclass(frozen=True, slots=True)
class Part:
    """Images of one folder or one list, in order.

    Attributes:
        images: The files.
        folder: The folder, of which every label file should have an image; None for a list.
    """

    images: tuple[Path, ...]
    folder: Path | None = None


def parts_of(layout: Layout, splits: Sequence[str], summary: Summary) -> list[Part]:
    """The images of the splits, or of the whole data set.

    Raises:
        DataError: There is no such split, or a list cannot be read.
    """
    if splits:
        return [part for split in splits for part in _of_split(layout, split, summary)]
    described = dict.fromkeys(place for split in layout.splits for place in layout.places(split))
    folders = [*_image_folders(layout.root), *(place for place in described if place.is_dir())]
    folders = [f for f in dict.fromkeys(folders) if not any(f != o and f.is_relative_to(o) for o in folders)]
    lists = [place for place in described if place.is_file()]
    labelled = _labelled_folders(layout.root)
    if folders or lists:  # others may hold what a detector wrote
        labelled = [folder for folder in labelled if family(folder.name)]
    folders += [folder for folder in labelled if not any(f.is_relative_to(folder) for f in folders)]
    return [
        *(_folder_part(layout.root, folder) for folder in folders),
        *(_list_part(layout.root, place, summary) for place in lists),
    ]


def has_labels(layout: Layout) -> bool:
    """Whether label files lie where those of the data set would; reads a few of them at most."""
    finder = LabelFinder(layout.root)
    if any(finder.has_folder(folder) for folder in _image_folders(layout.root)):
        return True
    for split in layout.splits:
        for place in layout.places(split):
            images: Sequence[Path] = (
                list_images(place, recursive=True, within=layout.root) if place.is_dir() else ()
            )
            if place.is_file():
                images = _list_part(layout.root, place, Summary()).images
            if any(finder.find(image) for image in islice(images, _PROBES)):
                return True
    return bool(_labelled_folders(layout.root))


def _of_split(layout: Layout, split: str, summary: Summary) -> list[Part]:
    if layout.places(split):
        return _described_parts(layout, split, summary)
    folders = _split_folders(layout.root)
    if split in folders:
        return [_folder_part(layout.root, folder) for folder in folders[split]]
    described = [name for name in layout.splits if layout.places(name)]
    if len(alike := same_names(split, described)) == 1:
        return _described_parts(layout, alike[0], summary)
    if len(alike := same_names(split, folders)) == 1:
        return [_folder_part(layout.root, folder) for folder in folders[alike[0]]]
    missing = ", ".join(layout.splits.get(split, ()))
    asked = f"{split} ({missing} is not there)" if missing else split
    raise no_such_split(layout.root, asked, sorted({*described, *folders}))


def _described_parts(layout: Layout, name: str, summary: Summary) -> list[Part]:
    parts = []
    for entry in layout.splits[name]:
        place = layout.place(entry)
        if place is None:
            summary.leave_out("folder or list of the split that is missing", entry, image=True)
        elif place.is_dir():
            parts.append(_folder_part(layout.root, place))
        else:
            parts.append(_list_part(layout.root, place, summary))
    return parts


def _folder_part(root: Path, folder: Path) -> Part:
    return Part(tuple(list_images(folder, recursive=True, within=root)), folder)


def _list_part(root: Path, file: Path, summary: Summary) -> Part:
    """The images that a list names, below the root or the list, or by the end of another machine's path."""
    lines = [line.replace("\\", "/") for line in read_lines(file)]
    base_names = Counter(PurePosixPath(line).name for line in set(lines))
    images: list[Path] = []
    folder_at = cache(existing)
    for line in lines:
        is_unique = base_names[PurePosixPath(line).name] == 1
        image = next(filter(None, _listed(line, (root, file.parent), is_unique, folder_at)), None)
        if image is None:
            summary.leave_out("listed image that is missing", line, image=True)
        else:
            images.append(image)
    return Part(tuple(images))


def _listed(
    line: str, bases: tuple[Path, Path], is_unique: bool, folder_at: Callable[[Path, str], Path | None]
) -> Iterator[Path | None]:
    """What a line may mean, the likeliest first; the base name alone only where one line has it."""
    parts = PurePosixPath(line).parts
    for start in range(len(parts)):
        if len(parts) - start > 1 or is_unique:
            inner, name = "/".join(parts[start:-1]), parts[-1]
            for base in bases:
                place = folder_at(base, inner)
                yield _image_in(bases[0], place, name) if place is not None else None


def _image_in(root: Path, folder: Path, name: str) -> Path | None:
    path = folder / name
    try:
        is_image = path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
        return path if is_image and relative_inside(root, path) is not None else None
    except (OSError, ValueError):
        return None


def _image_folders(root: Path) -> list[Path]:
    """`images/` of the root and of its sub-folders, whatever their case."""
    inner = _sub_folders(root)
    own = [folder for folder in inner if folder.name.casefold() in IMAGE_FOLDERS]
    below = [f for folder in inner if folder not in own for f in _sub_folders(folder)]
    return [*own, *(folder for folder in below if folder.name.casefold() in IMAGE_FOLDERS)]


def _split_folders(root: Path) -> dict[str, list[Path]]:
    """Folders that a split may name, those with images alone."""
    folders: dict[str, list[Path]] = {}
    for folder in _image_folders(root):
        if folder.parent == root:
            for inner in _sub_folders(folder):
                folders.setdefault(inner.name, []).append(inner)
        else:
            folders.setdefault(folder.parent.name, []).append(folder)
    for folder in _labelled_folders(root):
        if folder != root:
            folders.setdefault(folder.relative_to(root).parts[0], []).append(folder)
    return {
        name: found for name, found in folders.items() if any(has_images(one, within=root) for one in found)
    }


def _labelled_folders(root: Path) -> list[Path]:
    """The root, or folders in it, in which images lie that have labels, without `images/`."""
    finder = LabelFinder(root)
    if any(_has_labels(finder, image) for image in list_images(root)[:_PROBES]):
        return [root]
    return [
        folder
        for folder in _sub_folders(root)
        if folder.name.casefold() not in (*IMAGE_FOLDERS, LABELS)
        and any(
            _has_labels(finder, image) for image in list_images(folder, recursive=True, within=root)[:_PROBES]
        )
    ]


def _has_labels(finder: LabelFinder, image: Path) -> bool:
    path = finder.find(image)
    return path is not None and (path.parent != image.parent or looks_like_labels(path))


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
