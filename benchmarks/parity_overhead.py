"""What `edgedet parity` costs beside the inferences that it asks for, in one run.

    python benchmarks/parity_overhead.py BUNDLE --data DIR --images 500

Every `run` of every artifact, of PyTorch and of the fake-quantized references is timed inside one call of
`run_parity`. What is left of its wall time is overhead: decoding and preprocessing images, candidates and
suppression, matching, mAP. Opening runtimes and building the references is paid once whatever the number of
images, and is shown for itself. The ratio is given twice: references are inferences too, but they are
PyTorch's, several times as slow as those of the artifacts, so that overhead looks small beside them.
`artifacts alone` takes them out of both sides.

Where the data has fewer images than asked for, those that are missing are mirror images of the first; files
are read and decoded for them as well.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch

from edgedet import registry
from edgedet.boxes import Floats
from edgedet.bundle import Artifact, Bundle, open_bundle
from edgedet.data import Dataset, LabelledImage, open_dataset
from edgedet.parity import ParityReport, run_parity
from edgedet.pipeline import RuntimeLike


@dataclass(slots=True)
class Spent:
    """Seconds, by the wall and of all cores.

    Attributes:
        wall_s: By the wall.
        cpu_s: Of the process, all threads.
        runs: How often.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    runs: int = 0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add what passes inside."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += time.process_time() - cpu
        self.runs += 1


@dataclass(slots=True)
class Clock:
    """Where the time of a run went: inferences by who made them, and the opening of all that runs."""

    inference: defaultdict[str, Spent] = field(default_factory=lambda: defaultdict(Spent))
    opening: Spent = field(default_factory=Spent)

    def watch(self, name: str, runtime: RuntimeLike) -> RuntimeLike:
        """Time every run of a runtime from now on."""
        run, spent = runtime.run, self.inference[name]

        def timed(feeds: Mapping[str, Floats]) -> dict[str, Floats]:
            with spent.timed():
                return run(feeds)

        runtime.run = timed  # type: ignore[method-assign]
        return runtime

    def load_runtime(self, load: Callable[[str], Any]) -> Callable[[str], Any]:
        """`registry.RUNTIMES.load` whose runtimes are watched."""

        def watched(name: str) -> Callable[..., RuntimeLike]:
            def opened(path: Path, **options: Any) -> RuntimeLike:
                with self.opening.timed():
                    runtime: RuntimeLike = load(name)(path, **options)
                return self.watch(f"{name} {runtime.spec.precision}", runtime)

            return opened

        return watched

    def load_references(self, load: Callable[[str], Any]) -> Callable[[str], Any]:
        """`registry.REFERENCES.load` whose references are watched."""

        def watched(name: str) -> Callable[[Bundle], Any]:
            def opened(bundle: Bundle) -> Any:
                with self.opening.timed():
                    references = load(name)(bundle)
                open_one = references.open

                def open_watched(artifact: Artifact) -> RuntimeLike:
                    with self.opening.timed():
                        reference = open_one(artifact)
                    encoding = artifact.quantization.encoding if artifact.quantization else "?"
                    return self.watch(f"reference {encoding}", reference)

                references.open = open_watched
                return references

            return opened

        return watched


class Repeated:
    """A data set of as many images as asked for: its own, and then mirror images of the first."""

    def __init__(self, data: Dataset, images: int) -> None:
        self._data, self._images = data, images
        self.root, self.format, self.split, self.labels = data.root, data.format, data.split, data.labels
        self.summary = data.summary
        self.image_ids = [f"{data.image_ids[i % len(data)]}:{i // len(data)}" for i in range(images)]

    def __len__(self) -> int:
        return self._images

    def __getitem__(self, index: int) -> LabelledImage:
        index = range(len(self))[index]
        times, place = divmod(index, len(self._data))
        image = replace(self._data[place], image_id=self.image_ids[index])
        return mirrored(image) if times % 2 else image

    def __iter__(self) -> Iterator[LabelledImage]:
        return (self[index] for index in range(len(self)))


def mirrored(image: LabelledImage) -> LabelledImage:
    """An image left to right."""
    x1, y1, x2, y2 = image.boxes_xyxy.T
    width = image.image_bgr.shape[1]
    boxes = np.stack([width - x2, y1, width - x1, y2], axis=1)
    return replace(image, image_bgr=np.ascontiguousarray(image.image_bgr[:, ::-1]), boxes_xyxy=boxes)


@dataclass(frozen=True, slots=True)
class Result:
    """One run.

    Attributes:
        images: How many.
        torch_threads: Threads of PyTorch; those of the runtimes are the vendors' choice.
        total: All of `run_parity`.
        opening: Runtimes and references.
        inference: Runs, by who made them.
    """

    images: int
    torch_threads: int
    total: Spent
    opening: Spent
    inference: dict[str, Spent]

    def inferences(self, *, references: bool) -> Spent:
        """Those of the artifacts, and where asked for of PyTorch."""
        counted = [
            one
            for name, one in self.inference.items()
            if references or not name.startswith(("eager", "reference"))
        ]
        return Spent(
            sum(one.wall_s for one in counted),
            sum(one.cpu_s for one in counted),
            sum(one.runs for one in counted),
        )

    @property
    def overhead(self) -> Spent:
        """What is neither inference nor opening."""
        everything = self.inferences(references=True)
        return Spent(
            self.total.wall_s - self.opening.wall_s - everything.wall_s,
            self.total.cpu_s - self.opening.cpu_s - everything.cpu_s,
        )

    def ratio(self, *, references: bool, opening: bool) -> tuple[float, float]:
        """Time of parity over that of inference alone, by the wall and of all cores."""
        pure = self.inferences(references=references)
        more = self.opening if opening else Spent()
        return (
            1 + (self.overhead.wall_s + more.wall_s) / pure.wall_s,
            1 + (self.overhead.cpu_s + more.cpu_s) / pure.cpu_s,
        )


def measure(bundle: Bundle, data: Dataset, images: int) -> tuple[Result, ParityReport]:
    """One parity run over so many images, watched."""
    clock, total = Clock(), Spent()
    patches: list[AbstractContextManager[object]] = [
        mock.patch.object(registry.RUNTIMES, "load", clock.load_runtime(registry.RUNTIMES.load)),
        mock.patch.object(registry.REFERENCES, "load", clock.load_references(registry.REFERENCES.load)),
    ]
    with patches[0], patches[1], total.timed():
        report = run_parity(bundle, Repeated(data, images))
    return Result(images, torch.get_num_threads(), total, clock.opening, dict(clock.inference)), report


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--json", type=Path, help="the seconds, and a parity report beside them")
    given = parser.parse_args()
    result, report = measure(open_bundle(given.bundle), open_dataset(given.data, given.split), given.images)
    threads = (
        f"PyTorch {result.torch_threads} threads, OpenCV {cv2.getNumThreads()}, runtimes their own choice"
    )
    print(f"{result.images} images, {len(report.rows)} artifacts; {threads}")
    print(f"{'':24}{'runs':>6}{'wall s':>10}{'CPU s':>10}")
    parts = itertools.chain(
        sorted(result.inference.items()),
        [("opening", result.opening), ("everything else", result.overhead), ("run_parity", result.total)],
    )
    for name, spent in parts:
        print(f"{name:24}{spent.runs or '':>6}{spent.wall_s:10.2f}{spent.cpu_s:10.2f}")
    for references, label in ((True, "all inferences"), (False, "artifacts alone")):
        for opening in (False, True):
            wall, cpu = result.ratio(references=references, opening=opening)
            what = f"parity / {label}" + (", with opening" if opening else "")
            print(f"{what:40}{wall:10.3f}{cpu:10.3f}")
    if given.json:
        document = {"result": asdict(result), "report": report.model_dump(mode="json")}
        given.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
