"""A folder of images without annotations: to detect in, to calibrate with, to compare runtimes on."""

from __future__ import annotations

from pathlib import Path

from edgedet.data.dataset import OUTSIDE, Reader, Request, Summary, no_such_split
from edgedet.data.images import links_out, list_images
from edgedet.data.indexed import IndexedDataset, Objects, relative_inside
from edgedet.data.splits import same_names
from edgedet.data.unread import leave_out_other_formats


def read(request: Request) -> IndexedDataset:
    """List the images of a folder and its sub-folders; a split names a sub-folder.

    Raises:
        DataError: There is no such sub-folder, or no image.
    """
    root, summary = request.path, Summary(strict=request.strict)
    leave_out_other_formats(root, summary)
    records = []
    for folder in [_split_folder(root, split) for split in request.splits] or [root]:
        for link in links_out(folder, within=root):
            summary.leave_out(OUTSIDE, link.name, image=True)
        for path in list_images(folder, recursive=True, within=root):
            if (image_id := relative_inside(root, path)) is None:
                summary.leave_out(OUTSIDE, path.name, image=True)
            else:
                records.append(Objects(summary, image_id).record(image_id, path))
    return IndexedDataset(request, root, "images", request.labels or (), records, summary)


def _split_folder(root: Path, split: str) -> Path:
    if (root / split).is_dir() and relative_inside(root, root / split) is not None:
        return root / split
    names = _sub_folders(root)
    alike = same_names(split, names)
    if len(alike) != 1 or relative_inside(root, root / alike[0]) is None:
        raise no_such_split(root, split, names)
    return root / alike[0]


def _sub_folders(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def recognises(path: Path) -> bool:
    """A folder with an image in it or in a sub-folder."""
    return path.is_dir() and bool(list_images(path) or list_images(path, recursive=True))


READER = Reader(recognises, read, rank=3)
