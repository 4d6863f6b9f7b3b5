"""YOLO txt: one label file an image, one row an object: class index, centre x, centre y, width, height.

Numbers are fractions of the image's sides; `yolo_rows` says which other rows are read. Labels lie in
`labels/` where images lie in `images/`, in `labels/` of the root, or beside the images (`yolo_labels`). A
split is what the yaml or `obj.data` says, or a folder (`yolo_places`). Without a split every folder is used.
An image without a label file is background, which is legal; a folder of which no image has one is counted.

Labels: `names` of the yaml, in its order; otherwise the lines of `classes.txt` and the like (`yolo_layout`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgedet.data.dataset import OUTSIDE, Reader, Request, Summary
from edgedet.data.images import links_out
from edgedet.data.indexed import IndexedDataset, Objects, Record, relative_inside
from edgedet.data.text import decode
from edgedet.data.yolo_labels import LabelFinder
from edgedet.data.yolo_layout import Layout, is_description, layout_of
from edgedet.data.yolo_places import Part, has_labels, parts_of
from edgedet.data.yolo_rows import are_polygons, rows
from edgedet.errors import DataError

_UNLABELLED = "image of a folder without label files, taken as background"

# So many label files, evenly spaced, tell polygons from boxes with points.
_LOOKED_AT = 256


def read(request: Request) -> IndexedDataset:
    """Index a YOLO root, or the root of a YOLO yaml.

    Raises:
        DataError: There is no such split, no class names, or no usable image.
    """
    summary = Summary(strict=request.strict)
    layout = layout_of(request.path)
    if not layout.names and not request.labels:
        raise DataError(
            f"{layout.root} has no class names",
            got="no yaml with names and no classes.txt",
            expected="names: in a yaml of the root, as a list or as index: name",
            fix="write one, or pass the labels",
        )
    labels = request.labels or layout.names
    parts = parts_of(layout, request.splits, summary)
    index = _Index(layout, labels, parts, summary)
    for part in parts:
        index.add(part, is_joined=len(request.splits) > 1)
    return IndexedDataset(request, layout.root, "yolo", labels, list(index.records.values()), summary)


def recognises(path: Path) -> bool:
    """A yaml or `obj.data`, or a folder with images and label files in one of the layouts."""
    if path.is_file():
        return is_description(path)
    if not path.is_dir():
        return False
    try:
        layout = layout_of(path)
    except DataError:  # says `read`, if it is one
        layout = Layout(path)
    return has_labels(layout)


READER = Reader(recognises, read, rank=1)


class _Index:
    """Records of images, by image id."""

    def __init__(
        self, layout: Layout, labels: Sequence[str], parts: Sequence[Part], summary: Summary
    ) -> None:
        self.records: dict[str, Record] = {}
        self._layout, self._summary = layout, summary
        # Class indices of the files are those of the data set's own names; labels are found by name.
        self._names = layout.names or tuple(labels)
        self._class_ids = {index: labels.index(n) for index, n in enumerate(self._names) if n in labels}
        self._finder = LabelFinder(layout.root)
        self._owners: dict[Path, Path] = {}
        found = [path for part in parts for image in part.images if (path := self._finder.find(image))]
        step = max(len(found) / _LOOKED_AT, 1)
        some = [found[int(place * step)] for place in range(min(len(found), _LOOKED_AT))]
        # Those that cannot be read are counted when their image is added.
        self._polygons = are_polygons(text for path in some if (text := _label_text(path, Summary())))

    def add(self, part: Part, *, is_joined: bool) -> None:
        """Add the images of a part; of those that were there before, only joined splits count one."""
        for link in links_out(part.folder, within=self._layout.root) if part.folder is not None else ():
            self._summary.leave_out(OUTSIDE, link.name, image=True)
        labels = {image: self._finder.find(image) for image in part.images}
        labelled = {image.parent for image, path in labels.items() if path is not None}
        for image, path in labels.items():
            image_id = relative_inside(self._layout.root, image)
            if image_id is None:
                self._summary.leave_out(OUTSIDE, image.name, image=True)
            elif image_id in self.records:
                if is_joined:
                    self._summary.correct("image that is listed twice", image_id)
            elif self._owners.setdefault(path or image.with_suffix(""), image) != image:
                self._summary.leave_out("image whose name is taken", image.name)
            else:
                if image.parent not in labelled:
                    self._summary.correct(_UNLABELLED, image_id)
                self._add(image_id, image, path)
        for orphan in self._finder.orphans(part.folder) if part.folder is not None else ():
            self._summary.leave_out("label file without an image", orphan.name)

    def _add(self, image_id: str, image: Path, path: Path | None) -> None:
        text = "" if path is None else _label_text(path, self._summary)
        if text is None:
            return
        where = f"{image.stem}.txt"
        objects = Objects(self._summary, where)
        found = rows(text, where, self._layout.keypoints, self._summary, polygons=self._polygons)
        for corners, index in found:
            name = self._names[index] if index < len(self._names) else index
            objects.add(corners, self._class_ids.get(index), name)
        self.records[image_id] = objects.record(image_id, image, fractions=True)


def _label_text(path: Path, summary: Summary) -> str | None:
    """What a label file says, None after counting one that cannot be read."""
    try:
        return decode(path.read_bytes())
    except (OSError, UnicodeDecodeError) as exc:
        summary.leave_out("label file that cannot be read", path.name, f"{exc}", image=True)
        return None
