"""`edgedet detect`: objects in images, as a table, as JSON, as pictures.

An image that cannot be read is named on standard error and the run goes on; the exit code is then 1, or 2
where no image could be read. With `--strict` the first such image ends the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import cv2
import typer

from edgedet.cli.options import ModelArgument, PrecisionOption, RuntimeOption, ThreadsOption
from edgedet.cli.output import JsonOption, Output, open_output, print_error
from edgedet.cli.progress import Bars
from edgedet.data.images import IMAGE_SUFFIXES, list_images, read_image
from edgedet.detections import Detections
from edgedet.errors import DataError, UsageError
from edgedet.files import check_folder_writable, write_atomically
from edgedet.pipeline import Pipeline, load
from edgedet.preprocess import Image
from edgedet.report import draw_detections


def run(
    model: ModelArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Images, or folders of images.")],
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    score_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Lowest score; the detector's own if not given.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the pictures with boxes here.")
    ] = None,
    threads: ThreadsOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first image that cannot be read.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Detect objects in images.

    The exit code is 1 if some of the images could not be read, and 2 if none could.
    """
    with open_output(json) as output:
        paths = tuple(_expand(images))
        if save is not None:
            _check_save(save, paths)
        with load(model, runtime, precision, threads) as pipeline, Bars() as bars:
            pictures = Pictures(save, pipeline.labels)
            records: list[dict[str, Any]] = []
            failures: list[DataError] = []
            for path in bars(paths, "Detecting"):
                try:
                    records.append(_detect(pipeline, path, score_threshold, pictures, output))
                except DataError as exc:
                    if strict:
                        raise
                    print_error(exc)
                    failures.append(exc)
                    records.append({"path": str(path), "error": str(exc)})
            output.json(
                {"runtime": pipeline.runtime.name, "precision": pipeline.spec.precision, "images": records}
            )
    if failures:
        raise typer.Exit(1 if len(failures) < len(paths) else 2)


def _check_save(folder: Path, images: Sequence[Path]) -> None:
    """Refuse a folder in which a picture could take the place of one of the images.

    Files are compared and not their paths: either side may be a link.
    """
    check_folder_writable(folder)
    there = {_identity(path) for path in folder.iterdir()} if folder.is_dir() else set()
    for image in images:
        if (identity := _identity(image)) is not None and identity in there:
            raise UsageError(
                f"cannot save pictures in {folder}",
                got=f"the folder that holds {image}, which a picture could replace",
                expected="a folder without any of the images",
                fix="name another folder, such as a new one",
            )


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and number of a file, None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _detect(
    pipeline: Pipeline, path: Path, score_threshold: float | None, pictures: Pictures, output: Output
) -> dict[str, Any]:
    image = read_image(path)
    detections = pipeline(image, score_threshold=score_threshold)
    found = f"{len(detections)} object{'s' * (len(detections) != 1)}"
    output.line(f"{path}: {found}, {pipeline.runtime.name} {pipeline.spec.precision}")
    if len(detections):
        _show(detections, pipeline.labels, output)
    pictures.write(path, image, detections)
    return {"path": str(path), "detections": detections.to_records(pipeline.labels)}


def _show(detections: Detections, labels: Sequence[str], output: Output) -> None:
    rows = zip(detections.boxes_xyxy, detections.scores, detections.class_ids, strict=True)
    output.table(
        ("label", "score", "x1", "y1", "x2", "y2"),
        [
            (labels[class_id], f"{score:.3f}", *(f"{side:.1f}" for side in box))
            for box, score, class_id in rows
        ],
    )
    output.line()


def _expand(paths: Sequence[Path]) -> Iterator[Path]:
    """Files as they are named; of folders, the images in them in alphabetical order."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = list_images(path, recursive=True)
        if not found:
            raise DataError(
                f"there is nothing to detect in {path}",
                got="a folder without images",
                expected="files ending in " + ", ".join(sorted(IMAGE_SUFFIXES)),
                fix="check the path",
            )
        yield from found


class Pictures:
    """Pictures with boxes in one folder; images of one name from several folders get a number."""

    def __init__(self, folder: Path | None, labels: Sequence[str]) -> None:
        self._folder = folder
        self._labels = labels
        self._taken: set[str] = set()

    def write(self, path: Path, image_bgr: Image, detections: Detections) -> None:
        """Draw the detections of an image; its path gives the name."""
        if self._folder is None:
            return
        name, number = f"{path.stem}.jpg", 1
        while name in self._taken:
            number += 1
            name = f"{path.stem}-{number}.jpg"
        self._taken.add(name)
        drawn = draw_detections(image_bgr, detections, self._labels)
        _, encoded = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, 92])
        write_atomically(self._folder / name, encoded.tobytes())
