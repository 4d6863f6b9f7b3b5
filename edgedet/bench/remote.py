"""A benchmark on another machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from edgedet.bench.contenders import IMAGES
from edgedet.bench.report import BenchmarkReport
from edgedet.bundle import MANIFEST, companions, open_bundle
from edgedet.data.dataset import Dataset, nothing_to
from edgedet.devices import RemoteDevice
from edgedet.devices.blob import Blob, bundle_files
from edgedet.errors import InternalError
from edgedet.progress import Track, silent
from edgedet.selection import FLOAT, select


def run_benchmark_on(
    device: RemoteDevice,
    source: Path | str,
    runtimes: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    dataset: Dataset | None = None,
    track: Track = silent,
    announce: Callable[[str], None] | None = None,
    *,
    batches: Sequence[int] | None = None,
    **options: object,
) -> BenchmarkReport:
    """Measure artifacts on a device; a connection that is lost does not disturb what is measured.

    Args:
        device: Connected.
        source: A bundle folder or an artifact file, here.
        runtimes: As `run_benchmark`.
        precisions: As `run_benchmark`.
        dataset: As `run_benchmark`; its first images are sent.
        track: Shows how far the device is.
        announce: As `run_benchmark`.
        batches: As `run_benchmark`.
        options: Others of `run_benchmark`.

    Raises:
        EdgedetError: As `run_benchmark`.
        MissingDeviceError: The device is gone.
    """
    files, place = _source_files(Path(source), runtimes, precisions, batches)
    images = {} if dataset is None else _image_files(dataset)
    device.send({**files, **images}, track)
    order = {
        "source": place,
        "images": str(Path(next(iter(images))).parent) if images else "",
        "options": {
            "runtimes": runtimes,
            "precisions": precisions,
            "leave_out": (FLOAT,),
            "device": str(device.address),
            "batches": batches,
            **options,
        },
    }
    bars = _Bars(track, str(device.address))
    for record in device.run("benchmark", order):
        if "report" in record.header:
            bars.close()
            return BenchmarkReport.model_validate(record.header["report"])
        if "progress" in record.header:
            bars.show(record.header)
        elif announce is not None:
            announce(f"{device.address}: {record.header['announced']}")
    raise InternalError(
        f"{device.address} has ended without a report",
        got="no result",
        expected="a measurement",
        fix="run it again; report it if it stays",
    )


def _source_files(
    source: Path,
    runtimes: Sequence[str] | None,
    precisions: Sequence[str] | None,
    batches: Sequence[int] | None,
) -> tuple[dict[str, Blob], str]:
    """What is to be measured, and where it lies on the device."""
    if source.is_file() and source.name != MANIFEST:
        files = [path for path in (source, *companions(source)) if path.is_file()]
        return {f"artifact/{path.name}": Blob.of(path) for path in files}, f"artifact/{source.name}"
    bundle = open_bundle(source.parent if source.name == MANIFEST else source)
    artifacts, _ = select(bundle, runtimes, precisions, leave_out=(FLOAT,), batches=batches or (1,))
    return bundle_files(bundle, artifacts, "bundle"), "bundle"


def _image_files(dataset: Dataset) -> dict[str, Blob]:
    """The images that are shown, in a folder that is named as the data set."""
    folder = "-".join(filter(None, (dataset.root.resolve().name, dataset.split)))
    images = list(islice(dataset, IMAGES))
    if not images:
        raise nothing_to("detect in", dataset)
    return {
        f"images/{folder}/{number:03d}{image.path.suffix or '.png'}": Blob.of_image(image)
        for number, image in enumerate(images)
    }


class _Bars:
    """Shows what a device says of its progress as if it were made here."""

    def __init__(self, track: Track, address: str) -> None:
        self._track, self._address = track, address
        self._description, self._done = "", 0
        self._steps: Iterator[int] = iter(())

    def show(self, progress: Mapping[str, Any]) -> None:
        """Draw a step; another description is another bar."""
        if progress["progress"] != self._description or progress["done"] < self._done:
            self.close()
            self._description, self._done = progress["progress"], 0
            total = progress["total"] or 0
            self._steps = self._track(range(total + 1), f"{self._address}: {self._description}", total)
            next(self._steps, None)
        while self._done < progress["done"]:
            next(self._steps, None)
            self._done += 1

    def close(self) -> None:
        """Take the bar away."""
        close = getattr(self._steps, "close", None)
        if close is not None:
            close()
