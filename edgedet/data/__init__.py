"""Images with boxes from the formats that people have, one decoded image in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgedet import registry
from edgedet.data.dataset import Dataset, LabelledImage, Reader, Request, Summary, SummaryRecord
from edgedet.data.images import read_image
from edgedet.data.unread import check_no_other_format
from edgedet.errors import DataError, UsageError

__all__ = ["Dataset", "LabelledImage", "Summary", "SummaryRecord", "open_dataset", "read_image"]

BUILTIN = "builtin"


def open_dataset(
    path: Path | str,
    split: str | None = None,
    *,
    labels: Sequence[str] | None = None,
    strict: bool = False,
    data_format: str | None = None,
) -> Dataset:
    """Open a data set, whatever its format.

    Args:
        path: A VOC root, a YOLO root, its yaml or `obj.data`, a COCO json or the folder that holds it, a
            folder of images, or "builtin" for the procedural data set (a folder of that name is opened as
            "./builtin").
        split: A part of it: a file of `ImageSets/Main` (VOC), a key of the yaml (YOLO), a folder, a part of
            the json's name (COCO), or train, val or test (builtin, which is "test" by default). `valid` and
            the like mean val. `train+val` joins two.
        labels: The class names to use, in this order: those of a trained detector. Boxes of other classes are
            left out and counted. By default the data set's own.
        strict: Make the first fault a `DataError`. By default faults are left out and counted in `summary`,
            so that one bad file does not end a run over many.
        data_format: A name in `edgedet.registry.READERS`, for a path that could be read in two ways.

    Raises:
        DataError: The path is in no known format, or holds nothing that can be used.
        UsageError: There is no such format, or a label is given twice.
        MissingExtraError: A reader needs a package that is not installed.

    Example:
        >>> dataset = open_dataset("builtin", "val")
        >>> len(dataset)
        100
    """
    names = None if labels is None else tuple(labels)
    if names is not None and len(set(names)) != len(names):
        raise UsageError(
            "labels must differ",
            got=", ".join(names),
            expected="every name once",
            fix="remove the repeated ones",
        )
    request = Request(Path(path), split or None, names, strict)
    return _reader(str(path), data_format).read(request)


def _reader(path: str, data_format: str | None) -> Reader:
    if data_format is None and path == BUILTIN:
        data_format = BUILTIN
    if data_format is not None:
        chosen: Reader = registry.READERS.load(data_format)
        return chosen
    readers: list[Reader] = sorted(
        (registry.READERS.load(name) for name in registry.READERS), key=lambda r: r.rank
    )
    place = Path(path)
    for reader in readers:
        if reader.recognises(place):
            return reader
    check_no_other_format(place)
    looked_for = "; ".join(f"{name}: {registry.READERS.entry(name).summary}" for name in registry.READERS)
    raise DataError(
        f"{path} is not a data set",
        got="a file" if place.is_file() else _contents(place) if place.is_dir() else "no such path",
        expected=f"one of these ({looked_for})",
        fix="check the path; it must be the folder that holds what is listed, not one above it",
    )


def _contents(folder: Path) -> str:
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir())
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"a folder with {shown}" if names else "an empty folder"
