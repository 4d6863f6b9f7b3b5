"""COCO json: one file of images, annotations and categories, beside the images or in `annotations/`.

A split picks the json of a folder: `--split val2017` takes `annotations/instances_val2017.json`, or the one
json in the folder `val2017/`; `coco_images` finds the images. One file under two ids is one image with the
boxes of both; one id for two files leaves both out, since their boxes cannot be told apart.

Labels: the categories in the order of their ids, so that class ids have no holes. Crowds are ignored, not
learnt. Source of the format: cocodataset.org, "Data format", sections 1 and 2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedet.data.coco_entries import POLYGON_BOX, corners_of, flag, identifier, stated_size
from edgedet.data.coco_images import ImageFinder
from edgedet.data.dataset import ALL_IMAGES, Reader, Request, Summary
from edgedet.data.indexed import IndexedDataset, Objects, relative_inside
from edgedet.data.splits import family, same_names
from edgedet.errors import DataError
from edgedet.text import printable

_Document = dict[str, list[Any]]
_Entry = dict[str, Any]

_SECTIONS = ("images", "annotations", "categories")

# A COCO document starts with one of its sections; other json is read on until it has two of them.
_STARTS_LIKE_COCO = re.compile(rb'\s*\{\s*"(info|licenses|type|images|annotations|categories)"')
_SECTION = re.compile(rb'"(images|annotations)"\s*:\s*\[')
_CHUNK, _LONGEST_MATCH = 2**20, 100

# Files that lie beside the boxes in the original data set.
_OTHER_TASKS = ("captions", "image_info", "panoptic", "person_keypoints", "stuff")

_ANNOTATION_FOLDERS = ("annotation", "annotations")
_ANY_JSON = "*.[jJ][sS][oO][nN]"

_BAD_ENTRY = "entry of the json that cannot be read"


@dataclass(slots=True)
class _Image:
    """One file and the objects of all its entries."""

    path: Path
    objects: Objects
    size_hw: tuple[int, int] | None
    entries: int = 1


def read(request: Request) -> IndexedDataset:
    """Index a COCO json.

    Raises:
        DataError: The json cannot be found or read, or none of its images is there.
    """
    summary = Summary(strict=request.strict)
    files = _find_json(request)
    documents = [_load(file) for file in files]
    root = _root_of(request.path)
    names = _category_names(documents)
    labels = request.labels or tuple(dict.fromkeys(names[key] for key in sorted(names)))
    index = _Index(root, labels, summary)
    for number, (file, document) in enumerate(zip(files, documents, strict=True)):
        index.add(file, request.splits[number] if request.splits else None, document)
    records = [
        image.objects.record(image_id, image.path, size_hw=image.size_hw)
        for image_id, image in index.images.items()
    ]
    return IndexedDataset(request, root, "coco", labels, records, summary)


def recognises(path: Path) -> bool:
    """A COCO json, or a folder with one in it, in its `annotations/` or in a sub-folder."""
    if path.is_dir():
        return bool(_json_files(path))
    return path.suffix.lower() == ".json" and _looks_like_coco(path)


READER = Reader(recognises, read, rank=2)


def _looks_like_coco(path: Path) -> bool:
    found: set[bytes] = set()
    tail = b""
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                chunk = chunk.replace(b"\0", b"")  # UTF-16 and UTF-32
                if not found and not tail:
                    chunk = chunk.removeprefix(b"\xef\xbb\xbf").lstrip(b"\xff\xfe")
                    if _STARTS_LIKE_COCO.match(chunk):
                        return True
                    if not chunk.lstrip().startswith(b"{"):
                        return False
                found |= {match[1] for match in _SECTION.finditer(tail + chunk)}
                if len(found) == 2:
                    return True
                tail = chunk[-_LONGEST_MATCH:]
    except OSError:
        return False
    return False


def _json_files(folder: Path) -> list[Path]:
    found = [*folder.glob(_ANY_JSON), *folder.glob(f"*/{_ANY_JSON}")]
    for inner in folder.iterdir():
        if inner.name.casefold() in _ANNOTATION_FOLDERS:
            found += inner.glob(f"*/{_ANY_JSON}")
    return [path for path in sorted(found) if _looks_like_coco(path)]


def _root_of(path: Path) -> Path:
    """The folder that holds the one of the annotations, else the json's."""
    folder = path if path.is_dir() else path.parent
    above = (
        place.parent for place in (folder, folder.parent) if place.name.casefold() in _ANNOTATION_FOLDERS
    )
    return next(above, folder)


def _find_json(request: Request) -> list[Path]:
    if request.path.is_file():
        if request.split:
            raise DataError(
                f"{request.path} has no splits",
                got=f"split {request.split}",
                expected="no split, since the json names its images",
                fix=f"{ALL_IMAGES}; or give the folder that holds one json for each split",
            )
        return [request.path]
    files = _json_files(request.path)
    files = [file for file in files if not file.name.startswith(_OTHER_TASKS)] or files
    return [_pick(request, files, split) for split in request.splits or (None,)]


def _pick(request: Request, files: Sequence[Path], split: str | None) -> Path:
    fitting = list(files) if split is None else _of_split(files, split)
    if len(fitting) == 1:
        return fitting[0]
    raise DataError(
        f"{request.path} has {'more than one' if fitting else 'no'} COCO json for "
        + (f"split {split}" if split else "the whole data set"),
        got=", ".join(str(file.relative_to(request.path)) for file in fitting) or "none",
        expected=f"one of {', '.join(str(file.relative_to(request.path)) for file in files)}",
        fix="give the json itself, or a split: the part of its name after the first _, or its folder"
        + (f"; or use all images: {ALL_IMAGES}" if split and len(files) == 1 else ""),
    )


def _of_split(files: Sequence[Path], split: str) -> list[Path]:
    """The json files of a split: by the very name first, then by another form of it (val, valid)."""
    exact = [f for f in files if split in (f.stem, f.parent.name, f.stem.partition("_")[2])]
    if exact:
        return exact
    words = {file: _split_words(file) for file in files}
    names = same_names(split, (word for found in words.values() for word in found))
    return [file for file in files if set(words[file]) & set(names)]


def _split_words(file: Path) -> list[str]:
    """The words of a json's name or folder that name a split; none where they name several splits."""
    words = [word for word in re.split(r"[_\-. ]+", file.stem) if family(word)]
    words += [file.parent.name] if family(file.parent.name) else []
    return words if len({family(word) for word in words}) == 1 else []


def _load(file: Path) -> _Document:
    try:
        document = json.loads(file.read_bytes())
    except (ValueError, RecursionError, OSError) as exc:
        raise DataError(
            f"cannot read {file}",
            got=f"{type(exc).__name__}: {str(exc)[:200]}",
            expected="a COCO json",
            fix="get the file again or export it again",
        ) from exc
    missing = [
        key for key in _SECTIONS if not isinstance(document, dict) or not isinstance(document.get(key), list)
    ]
    if missing:
        raise DataError(
            f"{file} is not a COCO json",
            got=f"no list named {', '.join(missing)}",
            expected=f"an object with the lists {', '.join(_SECTIONS)}",
            fix="give the json with the boxes (instances_*.json)",
        )
    return {key: document[key] for key in _SECTIONS}


def _category_names(documents: Sequence[_Document]) -> dict[int | str, str]:
    names: dict[int | str, str] = {}
    for entry in (entry for document in documents for entry in document["categories"]):
        key = identifier(entry.get("id")) if isinstance(entry, dict) else None
        name = entry.get("name") if isinstance(entry, dict) else None
        if key is None or not isinstance(name, str):
            continue
        if names.setdefault(key, printable(name)) != printable(name):
            raise DataError(
                "two categories have one id",
                got=f"id {key} for {names[key]!r} and {name!r}",
                expected="an id for each category, the same in every split",
                fix="give every category its own id",
            )
    return dict(sorted(names.items(), key=_by_number))


def _by_number(item: tuple[int | str, str]) -> tuple[bool, int, str]:
    key = item[0]
    return (True, 0, key) if isinstance(key, str) else (False, key, "")


class _Index:
    """The images of one json after another, by image id."""

    def __init__(self, root: Path, labels: Sequence[str], summary: Summary) -> None:
        self.images: dict[str, _Image] = {}
        self._root, self._summary = root, summary
        self._ids = {name: index for index, name in enumerate(labels)}

    def add(self, file: Path, split: str | None, document: _Document) -> None:
        """Add the images of a json and their boxes."""
        categories = _category_names([document])
        entries = self._entries(file, document["images"])
        names = [entry["file_name"] for group in entries.values() for entry in group[:1]]
        finder = ImageFinder(self._root, file, split, names)
        images: dict[int | str, _Image | None] = {}
        for key, group in entries.items():
            images[key] = self._image(group, key, finder)
        for entry in document["annotations"]:
            image_key = identifier(entry.get("image_id")) if isinstance(entry, dict) else None
            if image_key is None or image_key not in images:
                detail = repr(entry.get("image_id") if isinstance(entry, dict) else entry)[:100]
                self._summary.leave_out("box of an unknown image", file.name, detail)
            elif (image := images[image_key]) is not None:
                self._add_object(image, entry, categories)

    def _entries(self, file: Path, images: Iterable[object]) -> dict[int | str, list[_Entry]]:
        """The entries of images by id."""
        groups: dict[int | str, list[_Entry]] = {}
        for entry in images:
            key = identifier(entry.get("id")) if isinstance(entry, dict) else None
            name = entry.get("file_name") if isinstance(entry, dict) else None
            if key is None or not isinstance(name, str) or not name or "\0" in name:
                self._summary.leave_out(_BAD_ENTRY, file.name, f"image {repr(entry)[:100]}", image=True)
            elif isinstance(entry, dict):
                groups.setdefault(key, []).append(entry)
        return groups

    def _image(self, group: Sequence[_Entry], key: int | str, finder: ImageFinder) -> _Image | None:
        """The image of the entries with one id, None after counting why there is none."""
        entry = group[0]
        if len({entry["file_name"] for entry in group}) > 1:
            for entry in group:
                self._summary.leave_out("image whose id is taken", entry["file_name"], repr(key), image=True)
            return None
        name, size_hw = entry["file_name"], stated_size(entry)
        path = finder.find(name, self._summary)
        image_id = None if path is None else relative_inside(self._root, path)
        if path is None or image_id is None:
            return None
        image = self.images.get(image_id)
        if image is None:
            image = self.images[image_id] = _Image(path, Objects(self._summary, name), size_hw)
        elif image.size_hw is not None and size_hw is not None and image.size_hw != size_hw:
            self._summary.leave_out("image that is listed in two sizes", name, image=True)
            return None
        else:
            self._summary.correct("image that is listed twice", name)
            image.entries += 1
        return image

    def _add_object(self, image: _Image, entry: _Entry, categories: dict[int | str, str]) -> None:
        category = identifier(entry.get("category_id"))
        name = None if category is None else categories.get(category)
        class_id = None if name is None else self._ids.get(name)
        corners, is_around_polygon = corners_of(entry)
        if image.entries > 1 and image.objects.has(corners, class_id):
            self._summary.correct("box that is listed twice", image.path.name)
            return
        if is_around_polygon:
            self._summary.correct(POLYGON_BOX, image.path.name)
        image.objects.add(
            corners,
            class_id,
            entry.get("category_id") if name is None else name,
            ignore=flag(entry.get("iscrowd", 0)),
            area=entry.get("area"),
        )
