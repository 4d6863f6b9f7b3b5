"""Image files of a COCO json: the folder that holds them, and each by its `file_name`.

A json does not say where its images are, and the folders of two splits often hold equal names. So the folder
that is named after the split comes before every other one, a folder of another split comes last, and where
folders of the same standing hold different files of the same names, the json is refused.

File names come as tools write them: with backslashes, `%20`, a path of another machine or an address. The
longest end of the path that is a file of the data set counts, the base name alone only where no other entry
and no other file has it.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from urllib.parse import unquote

from edgedet.data.dataset import Summary
from edgedet.data.images import files_below
from edgedet.data.indexed import relative_inside
from edgedet.data.splits import family
from edgedet.errors import DataError

# So many images are looked up in each folder that could hold them.
_PROBES = 50

# So many files of equal names are compared byte by byte before two folders count as copies.
_COMPARED = 3

# Folders that an error lists.
_SHOWN = 8

# Standing of a folder: it has the split's name, another form of it, no split's name, another split's name.
_OWN, _KIN, _NEUTRAL, _FOREIGN = range(4)

_IMAGE_FOLDERS = frozenset({"image", "images", "img", "imgs", "jpegimages"})

_WORDS = re.compile(r"[_\-. ]+")


class ImageFinder:
    """File names of one json to image files.

    Args:
        root: Of the data set, which no file may leave.
        file: The json.
        split: What was asked for, if anything.
        names: Every `file_name` of the json.

    Raises:
        DataError: No image is found, or folders that hold different files of these names stand alike.
    """

    def __init__(self, root: Path, file: Path, split: str | None, names: Sequence[str]) -> None:
        self._root, self._file = root, file
        own = _own_names(file, split)
        self._own = {name.casefold() for name in own}
        self._families = {name for name in map(family, own) if name}
        self._base_names = Counter(_key(_parts(name)[-1]) for name in set(names) if _parts(name))
        every = list(dict.fromkeys(names))
        self._folder = self._choose(_spread(every)) or self._choose(every) or self._deeper(every)
        self._is_foreign = self._standing(self._folder) == _FOREIGN

    def find(self, name: str, summary: Summary) -> Path | None:
        """The file of a `file_name`, or None after counting why there is none."""
        path = self._stated(self._folder, name)
        if path is None:
            bases = dict.fromkeys((self._folder, self._file.parent, self._root))
            path = next(filter(None, (self._by_end(base, name) for base in bases)), None)
            path = path or self._by_base_name(name)
            if path is not None:
                summary.correct("image found by the end of its path", name)
        if path is None:
            summary.leave_out(self._why(name), name, image=True)
        elif self._is_foreign:
            summary.correct("image in the folder of another split", name)
        return path

    def _why(self, name: str) -> str:
        try:
            if relative_inside(self._root, _joined(self._folder, name)) is None:
                return "path that leaves the data set"
        except (OSError, ValueError):
            return "image that cannot be looked up"
        return "image whose name several files have" if self._alike(name) else "image that is missing"

    def _stated(self, folder: Path, name: str) -> Path | None:
        return self._first(folder, _forms(name))

    def _by_end(self, folder: Path, name: str) -> Path | None:
        """The longest end of the path, of two parts at least."""
        parts = _parts(name)
        return self._first(folder, ("/".join(parts[start:]) for start in range(len(parts) - 1)))

    def _beside(self, folder: Path, name: str) -> Path | None:
        """The base name in a folder, where no other entry has it."""
        parts = _parts(name)
        if not parts or self._base_names[_key(parts[-1])] > 1:
            return None
        return self._first(folder, parts[-1:])

    def _by_base_name(self, name: str) -> Path | None:
        found = self._alike(name)
        return found[0] if len(found) == 1 and self._base_names[_key(_parts(name)[-1])] == 1 else None

    def _alike(self, name: str) -> list[Path]:
        """Files below the folder with the base name: those that have it exactly, else but for case."""
        parts = _parts(name)
        found = self._index.get(_key(parts[-1]), []) if parts else []
        return [path for path in found if path.name == parts[-1]] or found

    @cached_property
    def _index(self) -> dict[str, list[Path]]:
        """Files below the folder by base name, without those in the folders of other splits."""
        index: dict[str, list[Path]] = {}
        foreign = self._is_foreign
        for path in files_below(self._folder):
            if relative_inside(self._root, path) and (foreign or self._standing(path.parent) != _FOREIGN):
                index.setdefault(_key(path.name), []).append(path)
        return index

    def _first(self, folder: Path, names: Iterator[str] | Sequence[str]) -> Path | None:
        for name in names:
            path = _joined(folder, name)
            if _is_file(path) and relative_inside(self._root, path) is not None:
                return path
        return None

    def _standing(self, folder: Path) -> int:
        try:
            parts = [part.casefold() for part in folder.relative_to(self._root).parts]
        except ValueError:
            return _NEUTRAL
        families = {name for name in map(family, parts) if name}
        if self._own & set(parts):
            return _OWN
        if self._families & families:
            return _KIN
        return _FOREIGN if families and self._families else _NEUTRAL

    def _choose(self, names: Sequence[str]) -> Path | None:
        """The folder of most of the names, None where no folder has one of them."""
        folders = _candidates(self._root, self._file)
        standing = {folder: self._standing(folder) for folder in folders}
        has_own = min(standing.values()) < _NEUTRAL
        for look in (self._stated, self._by_end, self._beside):
            found = {folder: n for folder in folders if (n := sum(map(bool, _each(look, folder, names))))}
            if has_own:
                found = {folder: n for folder, n in found.items() if standing[folder] != _FOREIGN}
            if found:
                best = min((standing[folder], -n) for folder, n in found.items())
                return self._only([f for f, n in found.items() if (standing[f], -n) == best], look, names)
        return None

    def _deeper(self, names: Sequence[str]) -> Path:
        """The root, where an image lies deeper in it than the folders that were looked into."""
        self._folder, self._is_foreign = self._root, False
        if any(self._by_base_name(name) for name in names if _parts(name)):
            return self._root
        raise self._not_found(names)

    def _only(self, folders: list[Path], look: _Look, names: Sequence[str]) -> Path:
        """The one that is meant: the json's own, the one called images, or any of equal contents."""
        if self._file.parent in folders:
            return self._file.parent
        called_images = [folder for folder in folders if self._is_called_images(folder)]
        first, *others = called_images or folders
        if all(_same_files(_each(look, first, names), _each(look, other, names)) for other in others):
            return first
        shown = [str(folder.relative_to(self._root)) for folder in (first, *others)]
        raise DataError(
            f"the images of {self._file} could be in more than one folder",
            got=f"different files of the same names in {', '.join(shown[:_SHOWN])}",
            expected="one folder that holds them, or one with the name of the split",
            fix="give the folder of the images the name of the split, or put the json into it",
        )

    def _is_called_images(self, folder: Path) -> bool:
        return any(part.casefold() in _IMAGE_FOLDERS for part in folder.relative_to(self._root).parts)

    def _not_found(self, names: Sequence[str]) -> DataError:
        folders = _candidates(self._root, self._file)
        more = f" and {len(folders) - _SHOWN} more" if len(folders) > _SHOWN else ""
        return DataError(
            f"the images of {self._file} cannot be found",
            got=f"no {names[0]}" if names else "no image in the json",
            expected=f"its images in one of {', '.join(map(str, folders[:_SHOWN]))}{more}",
            fix="put the json beside its images, or into annotations/ beside images/; a folder that has the "
            "name of another split is not used",
        )


_Look = Callable[[Path, str], Path | None]


def _spread(names: list[str]) -> list[str]:
    """Names from all of the list: those of the first files may be the ones that were not copied."""
    step = max(1, len(names) // _PROBES)
    return names[::step][:_PROBES]


def _each(look: _Look, folder: Path, names: Sequence[str]) -> list[Path | None]:
    return [look(folder, name) for name in names]


def _own_names(file: Path, split: str | None) -> list[str]:
    """What the folder of a json's images may be called: as the split, the json or the json's folder."""
    words = [word for word in (*_WORDS.split(file.stem), file.parent.name) if family(word)]
    return [name for name in (split, file.stem, file.stem.partition("_")[2], *words) if name]


def _candidates(root: Path, file: Path) -> list[Path]:
    """The json's folder, the root, and two levels of folders below each."""
    bases = [base for base in dict.fromkeys([file.parent, root, root / "images"]) if base.is_dir()]
    first = [child for base in bases for child in _sub_folders(base)]
    return list(dict.fromkeys([*bases, *first, *(child for base in first for child in _sub_folders(base))]))


def _sub_folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(e.path) for e in entries if e.is_dir() and not e.name.startswith("."))


def _forms(name: str) -> list[str]:
    """A file name as it is written, with slashes, decoded, and what an address of Label Studio points to."""
    slashes = name.replace("\\", "/")
    forms = [name, slashes, unquote(slashes)]
    if "?d=" in slashes:
        forms.append(unquote(slashes.partition("?d=")[2]))
    elif "://" in slashes:
        forms.append(unquote(slashes.partition("?")[0]))
    return list(dict.fromkeys(forms))


def _parts(name: str) -> list[str]:
    return [part for part in _forms(name)[-1].split("/") if part not in ("", ".", "..")]


def _joined(folder: Path, name: str) -> Path:
    return Path(os.path.normpath(folder / name)) if ".." in name else folder / name


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _same_files(one: Sequence[Path | None], other: Sequence[Path | None]) -> bool:
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None or b is not None]
    if any(a is None or b is None or a.stat().st_size != b.stat().st_size for a, b in pairs):
        return False
    return all(a.read_bytes() == b.read_bytes() for a, b in islice(pairs, _COMPARED) if a and b)
