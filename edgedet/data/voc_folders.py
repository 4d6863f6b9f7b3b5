"""Where a VOC data set has its annotations and the image of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from edgedet.data.dataset import OUTSIDE, Summary
from edgedet.data.images import files_below, list_images
from edgedet.data.indexed import relative_inside

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

# Names of the folders, in small letters.
ANNOTATION_FOLDERS = ("annotations", "annotation", "xmls", "xml", "labels")
IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img")

_OTHER_NAME = "annotation whose filename is another image, read for the image of its own name"
_ELSEWHERE = "image found in another folder by its name"


def annotation_folder(root: Path) -> Path | None:
    """The folder of the annotations apart from the images, None where there is none with an xml."""
    options = [folder for folder in sub_folders(root) if folder.name.casefold() in ANNOTATION_FOLDERS]
    options.sort(key=lambda folder: ANNOTATION_FOLDERS.index(folder.name.casefold()))
    return next(filter(_has_annotations, options), None)


def _has_annotations(folder: Path) -> bool:
    """Whether xml files lie in a folder; in `labels/`, those of YOLO must not lie beside them."""
    suffixes = {path.suffix.lower() for path in files_below(folder)}
    return ".xml" in suffixes and not (folder.name.casefold() == "labels" and ".txt" in suffixes)


def annotation_files(folder: Path, *, within: Path | None = None) -> list[Path]:
    """The xml files in a folder and below it; `within` as in `files_below`."""
    return sorted(path for path in files_below(folder, within=within) if is_xml(path))


def is_xml(path: Path) -> bool:
    """Whether a file's name ends as an annotation's does."""
    return path.suffix.lower() == ".xml"


def sub_folders(folder: Path) -> list[Path]:
    """The folders in a folder, hidden ones left out."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


class ImageFinder:
    """Annotations to image files: by the name of the xml, else by the `<filename>` in it.

    Args:
        root: Of the data set.
        annotations: All xml files of the data set, which lay claim to the images of their names.
    """

    def __init__(self, root: Path, annotations: Sequence[Path]) -> None:
        self._root = root
        self._annotations = Counter(path.stem.casefold() for path in annotations)
        self._by_stem: dict[Path, dict[str, list[Path]]] = {}
        self._places: dict[Path, list[Path]] = {}
        self._owners: dict[Path, Path] = {}

    def has_image(self, annotation: Path) -> bool:
        """Whether an image of the xml's name is where the layout has it."""
        return bool(self._alike(annotation, annotation.stem))

    def find(self, annotation: Path, tree: Element, summary: Summary) -> Path | None:
        """The image of an annotation, or None after counting why there is none."""
        stated = PurePosixPath((tree.findtext("filename") or "").strip().replace("\\", "/")).name
        image = self._of_name(annotation, stated, summary) or self._of_filename(annotation, stated)
        if image is None:
            summary.leave_out("annotation without an image", annotation.name, image=True)
        elif relative_inside(self._root, image) is None:
            summary.leave_out(OUTSIDE, image.name, image=True)
        elif self._owners.setdefault(image, annotation) != annotation:
            summary.leave_out("annotation whose image is taken", annotation.name, image=True)
        else:
            if image.parent not in self._folders(annotation):
                summary.correct(_ELSEWHERE, annotation.name, str(image))
            return image
        return None

    def without_annotation(self) -> Iterator[Path]:
        """Images of the folders that were looked into, which no annotation has or could have."""
        for stems in self._by_stem.values():
            for images in stems.values():
                for image in images:
                    if image not in self._owners and image.stem.casefold() not in self._annotations:
                        yield image

    def _of_name(self, annotation: Path, stated: str, summary: Summary) -> Path | None:
        """The image with the name of the xml; of those with several suffixes, the stated one."""
        options = self._alike(annotation, annotation.stem)
        if not options and self._annotations[annotation.stem.casefold()] == 1:
            options = self._anywhere.get(annotation.stem.casefold(), [])
            options = options if len(options) == 1 else []
        if not options:
            return None
        image = next((path for path in options if path.name == stated), options[0])
        for other in options:
            if other != image:
                summary.leave_out("image whose name is taken", other.name)
        others = self._alike(annotation, PurePosixPath(stated).stem)
        if stated != image.name and any(path.name == stated for path in others):
            summary.correct(_OTHER_NAME, annotation.name, stated)
        return image

    def _of_filename(self, annotation: Path, stated: str) -> Path | None:
        """The image that the xml names, unless another xml has its name."""
        for stem in dict.fromkeys((stated, PurePosixPath(stated).stem)):
            if not stem or self._annotations[stem.casefold()]:
                continue
            options = self._alike(annotation, stem) or self._anywhere.get(stem.casefold(), [])
            named = [path for path in options if path.name == stated] or options
            if len(named) == 1:
                return named[0]
        return None

    def _alike(self, annotation: Path, stem: str) -> list[Path]:
        """Images with a name, in the first folder that has one; alike but for case where none is equal."""
        for folder in self._folders(annotation):
            found = self._stems(folder).get(stem.casefold(), [])
            exact = [path for path in found if path.stem == stem]
            if exact or len(found) == 1:
                return exact or found
        return []

    def _folders(self, annotation: Path) -> list[Path]:
        """Where the image of an annotation may be, the likeliest first."""
        folder = annotation.parent
        if folder not in self._places:
            self._places[folder] = list(dict.fromkeys(self._folders_for(folder)))
        return self._places[folder]

    def _folders_for(self, folder: Path) -> Iterator[Path]:
        parts = folder.relative_to(self._root).parts
        places = [i for i, part in enumerate(parts) if part.casefold() in ANNOTATION_FOLDERS]
        if not places:
            yield folder
            yield from _image_folders(folder)
            yield from (images.joinpath(*parts) for images in _image_folders(self._root))
        for place in reversed(places):
            base, inner = self._root.joinpath(*parts[:place]), parts[place + 1 :]
            shorter = [part for part in inner if part.casefold() not in ANNOTATION_FOLDERS]
            for images in _image_folders(base):
                yield from (images.joinpath(*inner), images.joinpath(*shorter))
            yield base.joinpath(*inner)
        yield folder

    def _stems(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._by_stem:
            stems: dict[str, list[Path]] = {}
            for path in list_images(folder) if folder.is_dir() else ():
                stems.setdefault(path.stem.casefold(), []).append(path)
            self._by_stem[folder] = stems
        return self._by_stem[folder]

    @cached_property
    def _anywhere(self) -> dict[str, list[Path]]:
        """Images of the data set by the name before the suffix, in small letters.

        Where there is a folder for images, only those below it: masks have the names of images.
        """
        stems: dict[str, list[Path]] = {}
        for folder in _image_folders(self._root) or [self._root]:
            for path in list_images(folder, recursive=True, within=self._root):
                stems.setdefault(path.stem.casefold(), []).append(path)
        return stems


def _image_folders(folder: Path) -> list[Path]:
    found = [inner for inner in sub_folders(folder) if inner.name.casefold() in IMAGE_FOLDERS]
    return sorted(found, key=lambda inner: IMAGE_FOLDERS.index(inner.name.casefold()))
