"""Peak memory of calibration on many images against few: it must not grow with their number.

    python benchmarks/calibration_memory.py CHECKPOINT --data DIR --split train+val

Statistics are collected and biases corrected for all three arithmetics, each time in a process of its own.
Where the data set has fewer images than are asked for, it is gone through again: every image is read and
decoded anew. The exit code is 1 if the larger run takes more than 1.2 times the memory of the smaller.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgedet.data import Dataset, LabelledImage, open_dataset
from edgedet.files import sha256_of
from edgedet.models import load_checkpoint
from edgedet.models.capture import capture
from edgedet.spec import Provenance
from edgedet_calibration.collect import collect
from edgedet_calibration.correction import with_corrections
from edgedet_calibration.encodings import ENCODINGS
from edgedet_calibration.images import CalibrationImages
from edgedet_calibration.placement import place
from edgedet_calibration.recipe import Recipe

_LARGEST_RATIO = 1.2


class Repeated:
    """A data set gone through as often as it takes to give so many images."""

    def __init__(self, dataset: Dataset, count: int) -> None:
        self._dataset, self._count = dataset, count
        self.root, self.format, self.split = dataset.root, dataset.format, dataset.split
        self.labels, self.summary = dataset.labels, dataset.summary
        self.image_ids = [dataset.image_ids[index % len(dataset)] for index in range(count)]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> LabelledImage:
        return self._dataset[index % len(self._dataset)]

    def __iter__(self) -> Iterator[LabelledImage]:
        return (self[index] for index in range(self._count))


@dataclass(frozen=True, slots=True)
class Peaks:
    """Resident memory of one process in MB, at its largest up to the end of each stage.

    Attributes:
        captured: The detector was loaded and captured.
        collected: Statistics were collected.
        corrected: Biases were corrected.
    """

    captured: float
    collected: float
    corrected: float


def measure(checkpoint: Path, dataset: Dataset, images: int) -> Peaks:
    """Calibrate in this process."""
    detector = load_checkpoint(checkpoint)
    provenance = Provenance(checkpoint_sha256=sha256_of(checkpoint))
    captured = capture(detector, detector.spec().model_copy(update={"provenance": provenance}))
    recipe = Recipe(images=images)
    data = CalibrationImages(Repeated(dataset, images), captured.spec.input, images)
    peaks = [_peak_mb()]
    stats = collect(captured, place(captured.graph_module), data)
    peaks.append(_peak_mb())
    with_corrections(captured, stats, recipe, ENCODINGS.values(), data)
    return Peaks(*peaks, _peak_mb())


def _peak_mb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def measured_apart(arguments: list[str], images: int) -> Peaks:
    """Calibrate in a process of its own."""
    command = [sys.executable, __file__, *arguments, "--worker", str(images)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Peaks(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure both and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split")
    parser.add_argument("--few", type=int, default=50)
    parser.add_argument("--many", type=int, default=1000)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        peaks = measure(given.checkpoint, open_dataset(given.data, given.split), given.worker)
        print(json.dumps({name: getattr(peaks, name) for name in Peaks.__slots__}))
        return
    found: list[Peaks] = []
    print(f"{'images':>8}{'captured MB':>14}{'collected MB':>14}{'corrected MB':>14}{'seconds':>10}")
    for images in (given.few, given.many):
        began = time.perf_counter()
        found.append(measured_apart(sys.argv[1:], images))
        stages = "".join(f"{getattr(found[-1], name):14.0f}" for name in Peaks.__slots__)
        print(f"{images:8}{stages}{time.perf_counter() - began:10.0f}", flush=True)
    ratio = found[1].corrected / found[0].corrected
    print(f"peak of {given.many} images over that of {given.few}: {ratio:.2f} (at most {_LARGEST_RATIO})")
    sys.exit(ratio > _LARGEST_RATIO)


if __name__ == "__main__":
    main()
