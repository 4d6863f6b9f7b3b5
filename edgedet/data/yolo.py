"""YOLO txt: one label file an image, one row an object: class index, centre x, centre y, width, height.

Numbers are fractions of the image's sides. Rows of a polygon (class index, then x and y of three points or
more) become the box around it. Both layouts are read: `images/SPLIT` with `labels/SPLIT`, and `SPLIT/images`
with `SPLIT/labels`. A split names such a folder, or a key of the yaml (`train: images/train2017`). Without a
split every folder is used. An image without a label file is background, which is legal.

Labels: `names` of the yaml in the root, in its order; otherwise the lines of `classes.txt`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edgedet.data.dataset import Reader, Request, Summary, no_such_split
from edgedet.data.images import list_images
from edgedet.data.indexed import IndexedDataset, Objects, Record, relative_inside
from edgedet.data.yolo_yaml import Description, read_description
from edgedet.errors import DataError


def read(request: Request) -> IndexedDataset:
    """Index a YOLO root, or the root of a YOLO yaml.

    Raises:
        DataError: There is no such split, no class names, or no usable image.
    """
    root = request.path.parent if request.path.is_file() else request.path
    summary = Summary(strict=request.strict)
    description = _describe(request.path, root)
    own = description.names
    labels = request.labels or own
    # Class indices of the files are those of the data set's own names; a detector's labels are found by name.
    names = own or labels
    class_ids = {index: labels.index(name) for index, name in enumerate(names) if name in labels}
    records: dict[str, Record] = {}
    for folder in _folders(root, request, description):
        _index(root, folder, names, class_ids, summary, records)
    return IndexedDataset(request, root, "yolo", labels, list(records.values()), summary)


def recognises(path: Path) -> bool:
    """A yaml with names, or a folder with images and label files in one of the two layouts."""
    if path.is_file():
        return path.suffix.lower() in (".yaml", ".yml")
    return path.is_dir() and any(_labels_of(path, folder).is_dir() for folder in _image_folders(path))


READER = Reader(recognises, read, rank=1)


def _describe(path: Path, root: Path) -> Description:
    if path.is_file():
        return read_description(path)
    for file in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        description = read_description(file)
        if description.names:
            return description
    classes = root / "classes.txt"
    lines = classes.read_text("utf-8-sig", errors="replace").splitlines() if classes.is_file() else []
    return Description(tuple(line.strip() for line in lines if line.strip()), {})


def _image_folders(root: Path) -> list[Path]:
    """Every folder that holds images as either layout has them."""
    images = root / "images"
    folders = [images, *(sorted(p for p in images.iterdir() if p.is_dir()) if images.is_dir() else ())]
    folders += sorted(p / "images" for p in root.iterdir() if p.is_dir() and p != images)
    return [folder for folder in folders if folder.is_dir()]


def _labels_of(root: Path, folder: Path) -> Path:
    """The label folder of an image folder: the last `images` below the root becomes `labels`."""
    parts = list(folder.relative_to(root).parts)
    if "images" not in parts:
        return folder
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return root.joinpath(*parts)


def _folders(root: Path, request: Request, description: Description) -> list[Path]:
    if not description.names and not request.labels:
        raise DataError(
            f"{root} has no class names",
            got="no yaml with names and no classes.txt",
            expected="names: in a yaml of the root, as a list or as index: name",
            fix="write one, or pass the labels",
        )
    if not request.splits:
        return [folder for folder in _image_folders(root) if list_images(folder)]
    return [_folder_of(root, split, description) for split in request.splits]


def _folder_of(root: Path, split: str, description: Description) -> Path:
    named = description.splits.get(split)
    options = [root / "images" / split, root / split / "images"] + ([root / named] if named else [])
    for folder in options:
        if _is_inside(root, folder):
            return folder
    raise no_such_split(root, split, _splits(root, description))


def _is_inside(root: Path, folder: Path) -> bool:
    return folder.is_dir() and relative_inside(root, folder) is not None


def _splits(root: Path, description: Description) -> list[str]:
    """The names of all splits: keys of the yaml and folders, but not `images/` itself."""
    names = {name for name, folder in description.splits.items() if _is_inside(root, root / folder)}
    for folder in _image_folders(root):
        if folder != root / "images" and list_images(folder):
            names.add(folder.name if folder.parent == root / "images" else folder.parent.name)
    return sorted(names)


def _index(
    root: Path,
    folder: Path,
    names: Sequence[str],
    class_ids: dict[int, int],
    summary: Summary,
    records: dict[str, Record],
) -> None:
    labels = _labels_of(root, folder)
    stems: set[str] = set()
    for image in list_images(folder):
        image_id = relative_inside(root, image)
        if image_id is None:
            summary.leave_out("path that leaves the data set", image.name, image=True)
        elif image.stem in stems or image_id in records:
            summary.leave_out("image whose name is taken", image.name)
        else:
            stems.add(image.stem)
            text = _label_text(labels / f"{image.stem}.txt", summary)
            if text is None:
                continue
            objects = Objects(summary, f"{image.stem}.txt")
            for corners, index in _rows(text, f"{image.stem}.txt", summary):
                name = names[index] if index < len(names) else index
                objects.add(corners, class_ids.get(index), name)
            records[image_id] = objects.record(image_id, image, fractions=True)
    for orphan in sorted(labels.glob("*.txt")) if labels != folder else ():
        if orphan.stem not in stems:
            summary.leave_out("label file without an image", orphan.name, image=True)


def _label_text(path: Path, summary: Summary) -> str | None:
    """What a label file says: nothing where there is none, None after counting one that cannot be read."""
    if not path.exists():
        return ""
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        summary.leave_out("label file that cannot be read", path.name, f"{exc}", image=True)
        return None


def _rows(text: str, where: str, summary: Summary) -> Iterator[tuple[list[float], int]]:
    """Corners and class index of every row that can be read."""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            index, values = float(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            index, values = -1.0, []
        if (
            not index.is_integer()
            or index < 0
            or not (len(values) == 4 or (len(values) >= 6 and len(values) % 2 == 0))
        ):
            summary.leave_out("row that cannot be read", where, f"line {number}: {line[:80]}")
            continue
        yield _corners(values), int(index)


def _corners(values: list[float]) -> list[float]:
    if len(values) > 4:
        xs, ys = values[0::2], values[1::2]
        return [min(xs), min(ys), max(xs), max(ys)]
    x, y, width, height = values
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
