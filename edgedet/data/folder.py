"""A folder of images without annotations: to detect in, to calibrate with, to compare runtimes on."""

from __future__ import annotations

from pathlib import Path

from edgedet.data.dataset import Reader, Request, Summary
from edgedet.data.images import list_images
from edgedet.data.indexed import IndexedDataset, Objects, relative_inside
from edgedet.errors import DataError


def read(request: Request) -> IndexedDataset:
    """List the images of a folder and its sub-folders; a split names a sub-folder.

    Raises:
        DataError: There is no such sub-folder, or no image.
    """
    root, summary = request.path, Summary(strict=request.strict)
    records = []
    for folder in [root / split for split in request.splits] or [root]:
        if not folder.is_dir() or relative_inside(root, folder) is None:
            raise DataError(
                f"{root} has no split {folder.name}",
                got=folder.name,
                expected="the name of a sub-folder",
                fix="choose one, or leave the split out to use all images",
            )
        for path in list_images(folder, recursive=True):
            if (image_id := relative_inside(root, path)) is None:
                summary.leave_out("path that leaves the data set", path.name, image=True)
            else:
                records.append(Objects(summary, image_id).record(image_id, path))
    return IndexedDataset(request, root, "images", request.labels or (), records, summary)


def recognises(path: Path) -> bool:
    """A folder with an image in it or in a sub-folder."""
    return path.is_dir() and bool(list_images(path) or list_images(path, recursive=True))


READER = Reader(recognises, read, rank=3)
