"""Pascal VOC xml.

Two layouts are read: xml files in a folder apart (`Annotations/` beside `JPEGImages/`, or `annotations/`
beside `images/`), and xml files beside their images; both with folders in folders. A split is a list of
`ImageSets/Main/`, or a sub-folder. Without a split every annotated image is used.

Boxes: VOC counts pixels from 1 and includes the last one, tools that write "VOC" mostly do not, and a file
does not say which. The numbers are taken as they stand as half-open corners, which is at most one pixel off
in either case and keeps results comparable with other trainers that do the same. Swapped corners are sorted
and counted.

Labels: `labels.txt` of the root, one name a line; otherwise the names in all annotations, whatever the split,
sorted by code point, so that every split of a data set has the same class ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgedet.data.dataset import OUTSIDE, Reader, Request, Summary, no_such_split
from edgedet.data.images import files_below, links_out
from edgedet.data.indexed import IndexedDataset, Objects, Record, relative_inside
from edgedet.data.splits import same_names
from edgedet.data.text import read_lines
from edgedet.data.unread import check_no_other_format
from edgedet.data.voc_folders import ImageFinder, annotation_files, annotation_folder, is_xml, sub_folders
from edgedet.data.voc_lists import listed, lists_of
from edgedet.data.voc_xml import SWAPPED, corners_of, names, parse, stated_size

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def read(request: Request) -> IndexedDataset:
    """Index the annotations of a VOC root.

    Raises:
        DataError: There is no such split, or it holds no usable image.
        MissingExtraError: defusedxml is not installed.
    """
    root, summary = request.path, Summary(strict=request.strict)
    folder = annotation_folder(root) or root
    limit = _limit(root, folder)
    everything = annotation_files(folder, within=limit)
    for link in links_out(folder, within=limit):
        summary.leave_out(OUTSIDE, link.name, image=True)
    chosen = _select(root, request.splits, everything, summary)
    labels = request.labels or _label_file(root)
    trees: dict[Path, Element] = {}
    among = frozenset(chosen)
    for path in everything if labels is None else chosen:
        if (tree := parse(path, summary if path in among else Summary())) is not None:
            trees[path] = tree
    labels = labels or tuple(sorted({name for tree in trees.values() for name in names(tree)}))
    class_ids = {name: index for index, name in enumerate(labels)}
    finder = ImageFinder(root, everything)
    records = []
    for path in chosen:
        if path in trees and (image := finder.find(path, trees[path], summary)) is not None:
            image_id = image.relative_to(root).as_posix()
            records.append(_record(image_id, path, image, trees[path], class_ids, summary))
    if not records:
        check_no_other_format(root)
    if not request.splits:
        for image in finder.without_annotation():
            summary.leave_out("image without an annotation", image.name)
    return IndexedDataset(request, root, "voc", labels, records, summary)


def recognises(path: Path) -> bool:
    """A folder with one of annotations in it, or with xml files beside images in it or below it."""
    if not path.is_dir():
        return False
    if annotation_folder(path) is not None:
        return True
    if (path / "Annotations").is_dir() and (path / "JPEGImages").is_dir():
        return True
    annotations = [file for file in annotation_files(path) if file.parent.name.casefold() != "labels"]
    return any(map(ImageFinder(path, annotations).has_image, annotations))


READER = Reader(recognises, read, rank=0)


def _select(root: Path, splits: Sequence[str], everything: Sequence[Path], summary: Summary) -> list[Path]:
    """The xml files of the splits, in the order of the lists, each once."""
    if not splits:
        return list(everything)
    chosen: dict[Path, None] = {}
    for path in (path for split in splits for path in _of_split(root, split, everything, summary)):
        if path in chosen:
            summary.leave_out("image that is listed twice", path.stem)
        chosen[path] = None
    return list(chosen)


def _of_split(root: Path, split: str, everything: Sequence[Path], summary: Summary) -> Iterator[Path]:
    folder = annotation_folder(root) or root
    lists = lists_of(root)
    folders = {inner.name: inner for inner in sub_folders(folder)}
    folders = {
        name: inner
        for name, inner in folders.items()
        if any(map(is_xml, files_below(inner, within=_limit(root, folder))))
    }
    for options in (lists, folders):
        found = same_names(split, options)
        if len(found) == 1:
            break
    else:
        raise no_such_split(root, split, sorted({*lists, *folders}))
    if options is lists:
        yield from listed(folder, lists[found[0]], everything, summary)
    else:
        yield from (path for path in everything if path.is_relative_to(folders[found[0]]))


def _limit(root: Path, folder: Path) -> Path:
    """Where links in the folder of the annotations may lead."""
    return folder if relative_inside(root, folder) is None else root


def _label_file(root: Path) -> tuple[str, ...] | None:
    path = root / "labels.txt"
    return tuple(read_lines(path)) if path.is_file() else None


def _record(
    image_id: str, annotation: Path, image: Path, tree: Element, class_ids: dict[str, int], summary: Summary
) -> Record:
    objects = Objects(summary, annotation.name)
    for item in tree.iterfind("object"):
        name = (item.findtext("name") or "").strip()
        corners, is_swapped = corners_of(item)
        if is_swapped:
            summary.correct(SWAPPED, annotation.name)
        difficult = (item.findtext("difficult") or "0").strip() not in ("0", "")
        objects.add(corners, class_ids.get(name), name, ignore=difficult)
    return objects.record(image_id, image, size_hw=stated_size(tree))
