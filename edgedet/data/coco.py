"""COCO json: one file of images, annotations and categories, beside the images or in `annotations/`.

The folder of the images is found by their names. A split picks the json of a folder: `--split val2017` takes
`annotations/instances_val2017.json`, or the one json in the folder `val2017/`.

Labels: the categories in the order of their ids, so that class ids have no holes. Crowds are ignored, not
learnt. Source of the format: cocodataset.org, "Data format", sections 1 and 2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from edgedet.data.dataset import ALL_IMAGES, Reader, Request, Summary
from edgedet.data.indexed import IndexedDataset, Objects, Record, relative_inside
from edgedet.errors import DataError
from edgedet.text import printable

_SECTIONS = ("images", "annotations", "categories")

# A COCO document starts with one of its sections; this tells it from other json without reading all of it.
_STARTS_LIKE_COCO = re.compile(rb'\s*\{\s*"(info|licenses|type|images|annotations|categories)"')

# So many images are looked up in each folder that could hold them.
_PROBES = 50

_BAD_ENTRY = "entry of the json that cannot be read"
_BAD_NAME = "image that cannot be looked up"


def read(request: Request) -> IndexedDataset:
    """Index a COCO json.

    Raises:
        DataError: The json cannot be found or read, or none of its images is there.
    """
    summary = Summary(strict=request.strict)
    files = _find_json(request)
    documents = [_load(file) for file in files]
    root = _root_of(files[0])
    names = _category_names(documents)
    labels = request.labels or tuple(dict.fromkeys(names[key] for key in sorted(names)))
    records: dict[str, Record] = {}
    for file, document in zip(files, documents, strict=True):
        _index(root, file, document, labels, summary, records)
    return IndexedDataset(request, root, "coco", labels, list(records.values()), summary)


def recognises(path: Path) -> bool:
    """A COCO json, or a folder with one in it, in its `annotations/` or in a sub-folder."""
    if path.is_dir():
        return bool(_json_files(path))
    return path.suffix.lower() == ".json" and _looks_like_coco(path)


READER = Reader(recognises, read, rank=2)


def _looks_like_coco(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _STARTS_LIKE_COCO.match(file.read(4096)) is not None
    except OSError:
        return False


def _json_files(folder: Path) -> list[Path]:
    return [
        path for path in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]) if _looks_like_coco(path)
    ]


def _root_of(file: Path) -> Path:
    return file.parent.parent if file.parent.name == "annotations" else file.parent


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
    # Panoptic, caption and keypoint files lie beside the boxes in the original data set.
    files = [file for file in files if file.name.startswith("instances")] or files
    return [_pick(request, files, split) for split in request.splits or (None,)]


def _pick(request: Request, files: Sequence[Path], split: str | None) -> Path:
    fitting = [
        f for f in files if split is None or split in (f.stem, f.parent.name, f.stem.partition("_")[2])
    ]
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


def _load(file: Path) -> dict[str, list[dict[str, Any]]]:
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
    return {key: [entry for entry in document[key] if isinstance(entry, dict)] for key in _SECTIONS}


def _category_names(documents: Sequence[dict[str, list[dict[str, Any]]]]) -> dict[int, str]:
    names: dict[int, str] = {}
    for entry in (entry for document in documents for entry in document["categories"]):
        key, name = entry.get("id"), entry.get("name")
        if not isinstance(key, int) or not isinstance(name, str):
            continue
        if names.setdefault(key, printable(name)) != printable(name):
            raise DataError(
                "two categories have one id",
                got=f"id {key} for {names[key]!r} and {name!r}",
                expected="an id for each category, the same in every split",
                fix="give every category its own id",
            )
    return names


def _index(
    root: Path,
    file: Path,
    document: dict[str, list[dict[str, Any]]],
    labels: tuple[str, ...],
    summary: Summary,
    records: dict[str, Record],
) -> None:
    """Add the records of one json to `records`, by image id."""
    ids = {name: index for index, name in enumerate(labels)}
    categories = _category_names([document])
    folder = _image_folder(root, file, document)
    images: dict[object, dict[str, Any]] = {}
    objects: dict[object, Objects] = {}
    for entry in document["images"]:
        key, name = entry.get("id"), entry.get("file_name")
        if not isinstance(key, int | str) or not isinstance(name, str) or "\0" in name:
            summary.leave_out(_BAD_ENTRY, file.name, f"image {key!r}", image=True)
        elif key in images:
            summary.leave_out("image whose id is taken", name, repr(key))
        else:
            images[key] = entry
            objects[key] = Objects(summary, name)
    for entry in document["annotations"]:
        key = entry.get("image_id")
        if not isinstance(key, int | str) or key not in objects:
            summary.leave_out("box of an unknown image", file.name, repr(key))
            continue
        category = entry.get("category_id")
        name = categories.get(category) if isinstance(category, int) else None
        objects[key].add(
            _corners(entry.get("bbox")),
            None if name is None else ids.get(name),
            category if name is None else name,
            ignore=bool(entry.get("iscrowd", 0)),
            area=entry.get("area"),
        )
    for key, entry in images.items():
        path = folder / entry["file_name"]
        try:
            image_id, is_there = relative_inside(root, path), path.is_file()
        except (OSError, ValueError) as exc:
            summary.leave_out(_BAD_NAME, entry["file_name"], f"{type(exc).__name__}: {exc}", image=True)
            continue
        if image_id is None:
            summary.leave_out("path that leaves the data set", entry["file_name"], image=True)
        elif not is_there:
            summary.leave_out("image that is missing", entry["file_name"], image=True)
        elif image_id in records:
            summary.leave_out("image whose name is taken", entry["file_name"])
        else:
            records[image_id] = objects[key].record(image_id, path, size_hw=_stated_size(entry))


def _corners(bbox: object) -> list[object]:
    """COCO's x, y, width, height as corners; what is no such list is returned as it is, for the message."""
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(isinstance(v, int | float) for v in bbox):
        return [bbox]
    try:
        x, y, width, height = (float(value) for value in bbox)
    except OverflowError:
        return [bbox]
    return [x, y, x + width, y + height]


def _stated_size(entry: dict[str, Any]) -> tuple[int, int] | None:
    height, width = entry.get("height"), entry.get("width")
    return (
        (height, width) if isinstance(height, int) and isinstance(width, int) and height and width else None
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _image_folder(root: Path, file: Path, document: dict[str, list[dict[str, Any]]]) -> Path:
    """The folder in which most of the first images lie."""
    bases = dict.fromkeys([file.parent, root, file.parent / "images", root / "images"])
    folders = [base for base in bases if base.is_dir()]
    folders += [child for base in folders for child in sorted(base.iterdir()) if child.is_dir()]
    names = [name for entry in document["images"] if isinstance(name := entry.get("file_name"), str)]
    probes = [name for name in islice(names, _PROBES) if "\0" not in name]

    def found(folder: Path) -> int:
        return sum(_is_file(folder / name) for name in probes)

    best = max(folders, key=found)
    if not found(best):
        raise DataError(
            f"the images of {file} cannot be found",
            got=f"no {probes[0]}" if probes else "no image in the json",
            expected=f"its images in one of {', '.join(str(folder) for folder in dict.fromkeys(folders))}",
            fix="put the json beside its images, or into annotations/ beside images/",
        )
    return best
