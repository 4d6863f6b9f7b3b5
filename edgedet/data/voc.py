"""Pascal VOC xml.

Two layouts are read: the devkit's (`Annotations/`, `JPEGImages/`, `ImageSets/Main/SPLIT.txt`) and xml files
beside their images, as annotation tools write them, where a split names a sub-folder. Without a split every
annotated image is used.

Boxes: VOC counts pixels from 1 and includes the last one, tools that write "VOC" mostly do not, and a file
does not say which. The numbers are taken as they stand as half-open corners, which is at most one pixel off
in either case and keeps results comparable with other trainers that do the same.

Labels: `labels.txt` of the root, one name a line; otherwise the names in all annotations, whatever the split,
sorted by code point, so that every split of a data set has the same class ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgedet.data.dataset import Reader, Request, Summary, no_such_split
from edgedet.data.images import list_images
from edgedet.data.indexed import IndexedDataset, Objects, Record, relative_inside
from edgedet.registry import missing_extra

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

# The lists of one class end their lines with 1, -1 or 0: whether it is in the image.
_CLASS_FLAG = re.compile(r"\s+(-1|0|1)$")

_BAD_ANNOTATION = "annotation that cannot be read"


def read(request: Request) -> IndexedDataset:
    """Index the annotations of a VOC root.

    Raises:
        DataError: There is no such split, or it holds no usable image.
        MissingExtraError: defusedxml is not installed.
    """
    root, summary = request.path, Summary(strict=request.strict)
    annotations = _select(root, request.splits, summary)
    trees: dict[Path, Element] = {}
    labels = request.labels or _label_file(root)
    if labels is None:
        for path in _annotation_files(root):
            if (tree := _parse(path, summary if path in annotations else Summary())) is not None:
                trees[path] = tree
        labels = tuple(sorted({name for tree in trees.values() for name in _names(tree)}))
    else:
        for path in annotations:
            if (tree := _parse(path, summary)) is not None:
                trees[path] = tree
    class_ids = {name: index for index, name in enumerate(labels)}
    images = _ImageFinder(root)
    records = []
    for path in annotations:
        if path in trees and (image := images.find(path, trees[path], summary)) is not None:
            records.append(_record(root, path, image, trees[path], class_ids, summary))
    return IndexedDataset(request, root, "voc", labels, records, summary)


def recognises(path: Path) -> bool:
    """A folder with `Annotations/`, or with xml files beside images in it or in its sub-folders."""
    if not path.is_dir():
        return False
    if (path / "Annotations").is_dir():
        return True
    return any(_has_annotated_image(folder) for folder in _flat_folders(path))


READER = Reader(recognises, read, rank=0)


def _has_annotated_image(folder: Path) -> bool:
    stems = {image.stem for image in list_images(folder)}
    return any(path.stem in stems for path in folder.glob("*.xml"))


def _flat_folders(root: Path) -> list[Path]:
    return [root, *sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))]


def _annotation_files(root: Path) -> list[Path]:
    if (root / "Annotations").is_dir():
        return sorted((root / "Annotations").glob("*.xml"))
    return [path for folder in _flat_folders(root) for path in sorted(folder.glob("*.xml"))]


def _select(root: Path, splits: Sequence[str], summary: Summary) -> list[Path]:
    """The xml files of the splits, in the order of the lists, each once."""
    if not splits:
        return _annotation_files(root)
    chosen: dict[Path, None] = {}
    for path in (path for split in splits for path in _of_split(root, split, summary)):
        if path in chosen:
            summary.leave_out("image that is listed twice", path.stem)
        chosen[path] = None
    return list(chosen)


def _of_split(root: Path, split: str, summary: Summary) -> Iterator[Path]:
    lists = root / "ImageSets" / "Main"
    options = {path.stem: path for path in sorted(lists.glob("*.txt"))}
    if not (root / "Annotations").is_dir():
        options = {folder.name: folder for folder in _flat_folders(root)[1:] if any(folder.glob("*.xml"))}
    if split not in options:
        raise no_such_split(root, split, tuple(options))
    if options[split].is_dir():
        yield from sorted(options[split].glob("*.xml"))
    else:
        yield from _listed(root / "Annotations", options[split], summary)


def _listed(folder: Path, listing: Path, summary: Summary) -> Iterator[Path]:
    for line in listing.read_text("utf-8-sig", errors="replace").splitlines():
        name = line.strip()
        path = folder / f"{name}.xml"
        if name and not path.is_file():
            name = _CLASS_FLAG.sub("", name)
            path = folder / f"{name}.xml"
        if not name:
            continue
        if relative_inside(folder, path) is None:
            summary.leave_out("path that leaves the data set", f"{listing.name}: {name}", image=True)
        elif not path.is_file():
            summary.leave_out("listed image without an annotation", name, image=True)
        else:
            yield path


def _label_file(root: Path) -> tuple[str, ...] | None:
    path = root / "labels.txt"
    if not path.is_file():
        return None
    return tuple(
        line.strip() for line in path.read_text("utf-8-sig", errors="replace").splitlines() if line.strip()
    )


def _parse(path: Path, summary: Summary) -> Element | None:
    try:
        from defusedxml.ElementTree import parse  # type: ignore[import-untyped]
    except ModuleNotFoundError as exc:
        raise missing_extra("the VOC reader", exc, "evaluate") from exc
    try:
        root: Element | None = parse(path).getroot()
    except (SyntaxError, ValueError, LookupError, OSError) as exc:  # ParseError is a SyntaxError
        summary.leave_out(_BAD_ANNOTATION, path.name, f"{type(exc).__name__}: {exc}", image=True)
        return None
    if root is None or root.tag != "annotation":
        summary.leave_out(
            _BAD_ANNOTATION,
            path.name,
            f"<{root.tag if root is not None else ''}>, not <annotation>",
            image=True,
        )
        return None
    return root


def _names(tree: Element) -> Iterator[str]:
    for item in tree.iterfind("object"):
        if name := (item.findtext("name") or "").strip():
            yield name


class _ImageFinder:
    """Annotations to image files, by the name before the suffix."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._by_stem: dict[Path, dict[str, list[Path]]] = {}

    def find(self, annotation: Path, tree: Element, summary: Summary) -> Path | None:
        """The image of an annotation, or None after counting why there is none."""
        folder = annotation.parent
        if folder.name == "Annotations":
            folder = folder.parent / "JPEGImages"
        options = self._stems(folder).get(annotation.stem, [])
        if not options:
            summary.leave_out("annotation without an image", annotation.name, image=True)
            return None
        stated = (tree.findtext("filename") or "").strip()
        image = next((path for path in options if path.name == stated), options[0])
        for other in options:
            if other != image:
                summary.leave_out("image whose name is taken", other.name)
        if relative_inside(self._root, image) is None:
            summary.leave_out("path that leaves the data set", image.name, image=True)
            return None
        return image

    def _stems(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._by_stem:
            stems: dict[str, list[Path]] = {}
            for path in list_images(folder) if folder.is_dir() else ():
                stems.setdefault(path.stem, []).append(path)
            self._by_stem[folder] = stems
        return self._by_stem[folder]


def _record(
    root: Path, annotation: Path, image: Path, tree: Element, class_ids: dict[str, int], summary: Summary
) -> Record:
    objects = Objects(summary, annotation.name)
    for item in tree.iterfind("object"):
        name = (item.findtext("name") or "").strip()
        corners = [item.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
        difficult = (item.findtext("difficult") or "0").strip() not in ("0", "")
        objects.add(corners, class_ids.get(name), name, ignore=difficult)
    return objects.record(image.relative_to(root).as_posix(), image, size_hw=_stated_size(tree))


def _stated_size(tree: Element) -> tuple[int, int] | None:
    """The size in the xml, unless it is missing, malformed or zero, as some tools leave it."""
    sides: Iterable[str] = (tree.findtext(f"size/{key}") or "" for key in ("height", "width"))
    try:
        height, width = (int(side) for side in sides)
    except ValueError:
        return None
    return (height, width) if height > 0 and width > 0 else None
