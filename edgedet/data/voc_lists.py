"""Lists of a VOC data set: the xml files that a line of `ImageSets/Main/SPLIT.txt` means."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgedet.data.dataset import OUTSIDE, Summary
from edgedet.data.images import IMAGE_SUFFIXES
from edgedet.data.indexed import relative_inside
from edgedet.data.splits import family
from edgedet.data.text import read_lines
from edgedet.data.voc_folders import ANNOTATION_FOLDERS, IMAGE_FOLDERS

# The lists of one class end their lines with 1, -1 or 0: whether it is in the image.
_CLASS_FLAG = re.compile(r"\s+(-1|0|1)$")


# After one of these, a path says where an annotation lies in the folder of annotations.
_FOLDERS = frozenset({*ANNOTATION_FOLDERS, *IMAGE_FOLDERS})


def lists_of(root: Path) -> dict[str, Path]:
    """Lists by their split: of `ImageSets/Main` and `ImageSets`, else those of the root named after one."""
    sets = [path for path in sorted(root.iterdir()) if path.name.casefold() == "imagesets" and path.is_dir()]
    mains = [path for folder in sets for path in folder.iterdir() if path.name.casefold() == "main"]
    lists = {path.stem: path for folder in (*sets, *mains) for path in _texts(folder)}
    if lists:
        return dict(sorted(lists.items()))
    names = {path.stem.removesuffix("_list"): path for path in _texts(root)}
    return {name: path for name, path in names.items() if family(name)}


def listed(folder: Path, listing: Path, annotations: Sequence[Path], summary: Summary) -> Iterator[Path]:
    """The xml file of every line.

    Args:
        folder: Of the annotations.
        listing: Names, with or without folders and suffixes, or an image and its xml in two columns.
        annotations: All xml files of the data set.
        summary: Counts the lines without one.
    """
    known = {path.relative_to(folder).with_suffix("").as_posix(): path for path in annotations}
    stems: dict[str, list[Path]] = {}
    for path in annotations:
        stems.setdefault(path.stem, []).append(path)
    for line in read_lines(listing):
        found = next(filter(None, (_annotation(*name, known, stems) for name in _names(line))), None)
        if found is not None:
            yield found
        elif _leaves(folder, line):
            summary.leave_out(OUTSIDE, f"{listing.name}: {line}", image=True)
        else:
            name = _CLASS_FLAG.sub("", line)
            summary.leave_out("listed image without an annotation", name, image=True)


def _annotation(
    name: str, is_whole: bool, known: dict[str, Path], stems: dict[str, list[Path]]
) -> Path | None:
    """The annotation that a name means; the end of a path only where no other has the last part of it."""
    if is_whole and name in known:
        return known[name]
    alike = stems.get(name.rpartition("/")[2], [])
    is_end = "/" not in name or name in known
    return alike[0] if len(alike) == 1 and is_end else None


def _names(line: str) -> Iterator[tuple[str, bool]]:
    """What a line may name and whether that is all of it, the last part of its last column last."""
    columns = line.split()
    whole = [line, _CLASS_FLAG.sub("", line)]
    for text in (*whole, *(columns if len(columns) == 2 else ()), whole[1]):
        text = text.replace("\\", "/")
        for name in (text, _without_suffix(text)):
            parts = [part for part in name.split("/") if part not in ("", ".")]
            folders = [start for start, part in enumerate(parts) if part.casefold() in _FOLDERS]
            wholes = (0, folders[-1] + 1 if folders else 0)
            yield from (("/".join(parts[start:]), start in wholes) for start in range(len(parts)))


def _without_suffix(text: str) -> str:
    suffix = Path(text).suffix
    return text.removesuffix(suffix) if suffix.lower() in (*IMAGE_SUFFIXES, ".xml") else text


def _leaves(folder: Path, line: str) -> bool:
    try:
        return relative_inside(folder, folder / f"{line}.xml") is None
    except (OSError, ValueError):
        return True


def _texts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == ".txt" and path.is_file())
