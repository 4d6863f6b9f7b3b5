"""One pass over the images with every artifact open: each image is decoded and preprocessed once for all.

The reference of detections and mAP is the float detector in PyTorch. Raw outputs of a calibrated artifact are
compared with the fake-quantized PyTorch module of its encoding instead, so that a fault of a runtime is told
from the cost of quantization; so are the detections of one that was trained in 8 bits, for whose weights in
float nobody asked. Memory does not grow with the images but for their detections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice

from edgedet.bundle import Artifact, Bundle
from edgedet.data.dataset import Dataset, LabelledImage, nothing_to
from edgedet.devices import LOCAL, Address, RemoteDevice
from edgedet.devices.together import on_all, open_all
from edgedet.environment import read_environment
from edgedet.evaluate import AccuracyReport, Evaluator, shared_classes, with_detector_classes
from edgedet.parity.budgets import Budgets, load_budgets
from edgedet.parity.frame import Frame, QuantizedReferences
from edgedet.parity.lane import Lane, ViewSource
from edgedet.parity.opened import open_artifacts, open_reference
from edgedet.parity.remote import DeviceRun, SentImage
from edgedet.parity.report import ParityReport, Reference
from edgedet.parity.rows import parity_rows, warnings_of
from edgedet.progress import Track, silent
from edgedet.selection import FLOAT, Skipped, select


@dataclass(frozen=True, slots=True)
class Devices:
    """Where artifacts run.

    Attributes:
        addresses: At least one; rows are in their order.
        stay: Leave on remote ones what was sent, for the next run.
        tell: Takes sentences for a person who waits.
    """

    addresses: Sequence[Address] = (Address(LOCAL),)
    stay: bool = False
    tell: Callable[[str], None] = lambda _: None


def run_parity(
    bundle: Bundle,
    dataset: Dataset,
    runtimes: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    budgets: Budgets | None = None,
    track: Track = silent,
    limit: int | None = None,
    *,
    layers: bool = False,
    devices: Devices | None = None,
) -> ParityReport:
    """Compare a bundle's artifacts with its float detector on real images.

    Args:
        bundle: The bundle; it must hold the float detector (`eager` `fp32`).
        dataset: Images, and boxes for mAP where it has them.
        runtimes: Names of runtimes that must be compared; by default all that the bundle and the device have.
        precisions: Precisions that must be compared; by default all of the bundle.
        budgets: What may differ; by default `load_budgets()`.
        track: Shows progress.
        limit: Most images, the first of the data set.
        layers: Look at all calibrated artifacts' layers, not only where raw outputs leave their budget.
        devices: Where artifacts run, by default here, as the references do.

    Raises:
        DataError: There is no readable image, or no class is shared with the detector.
        UsageError, ConfigError: A name, or a class in the budgets, does not exist or the bundle lacks it.
        MissingError: PyTorch, a runtime that was asked for, what the reference of INT8 artifacts needs, or a
            device is not there.
        BundleError: The bundle lacks what the reference of its INT8 artifacts is made from.
    """
    spec, budgets, devices = bundle.spec, budgets or load_budgets(), devices or Devices()
    budgets.check_classes(spec.labels)
    mapping = shared_classes(dataset.labels, spec.labels)
    with ExitStack() as stack:
        reference = open_reference(bundle, stack)
        artifacts, skipped = select(bundle, runtimes, precisions, leave_out=(FLOAT,))
        fakes = QuantizedReferences(bundle, stack)
        job = _Job(bundle, artifacts, runtimes is not None, track)
        sources, runs = job.open(devices, _images(dataset, limit), skipped, stack)
        lanes = [Lane(one, spec, budgets, fakes) for one in track(sources, "Preparing", len(sources))]
        evaluator, found, seen = Evaluator(spec.labels), 0, 0
        for image in track(_images(dataset, limit), "Comparing", min(len(dataset), limit or len(dataset))):
            labelled = with_detector_classes(image, mapping)
            frame = Frame(seen, image, spec, reference.runtime, fakes)
            evaluator.add(labelled, frame.float_view.detections)
            evaluator.add_left_out(image, dataset.labels)
            found, seen = found + frame.found, seen + 1
            for run in runs:
                run.next_image()
            for lane in lanes:
                lane.add(labelled, frame)
        if not seen:
            raise nothing_to("compare on", dataset)
        warnings = _compare_layers([lane for lane in lanes if layers or lane.is_noisy], runs, track)
    truth = evaluator.report()
    rows = parity_rows([lane.judged(truth) for lane in lanes], spec.labels, budgets)
    warnings = [truth.left_out_line, *warnings_of(seen, found, rows), fakes.warning(seen), *warnings]
    return ParityReport(
        detector=spec.name,
        checkpoint_sha256=spec.provenance.checkpoint_sha256,
        data=data_name(dataset),
        data_summary=dataset.summary.record(),
        images=seen,
        boxes=truth.boxes,
        left_out=truth.left_out,
        score_threshold=spec.score_threshold,
        spec=spec,
        reference=_reference(reference.artifact, truth, found),
        rows=rows,
        skipped=tuple(skipped),
        budgets=budgets,
        environment=read_environment(),
        devices={str(run.device.address): run.environment for run in runs},
        warnings=tuple(filter(None, warnings)),
        passed=all(row.passed for row in rows),
    )


def _compare_layers(lanes: Sequence[Lane], runs: Sequence[DeviceRun], track: Track) -> list[str]:
    """Why layers were not seen, "" where they were, when the devices have seen all images."""
    for run in runs:
        run.wait()
    return [lane.compare_layers() for lane in track(lanes, "Comparing layers", len(lanes))]


def data_name(dataset: Dataset) -> str:
    """Format, name and split, as reports call a data set."""
    return " ".join(dict.fromkeys(filter(None, (dataset.format, dataset.root.name, dataset.split))))


def _images(dataset: Dataset, limit: int | None) -> Iterable[LabelledImage]:
    return dataset if limit is None else islice(dataset, limit)


def _reference(artifact: Artifact, truth: AccuracyReport, found: int) -> Reference:
    return Reference(
        runtime=artifact.runtime,
        precision=artifact.precision,
        map=truth.map,
        map50=truth.map50,
        detections=found,
    )


@dataclass(frozen=True, slots=True)
class _Job:
    """What every device is asked for.

    Attributes:
        bundle: Where artifacts are.
        artifacts: Those that are wanted.
        asked: Whether their runtimes were asked for by name.
        track: Shows progress.
    """

    bundle: Bundle
    artifacts: Sequence[Artifact]
    asked: bool
    track: Track

    def open(
        self, devices: Devices, images: Iterable[LabelledImage], skipped: list[Skipped], stack: ExitStack
    ) -> tuple[list[ViewSource], list[DeviceRun]]:
        """Artifacts on all devices, in their order, and the remote ones among these."""
        remote = [address for address in dict.fromkeys(devices.addresses) if address.transport != LOCAL]
        connected = open_all(remote, stack, stay=devices.stay, tell=devices.tell)
        spec = self.bundle.spec
        sent = [SentImage.of(image, spec) for image in images] if connected else []
        runs = []
        for found in on_all(connected, lambda device: self._run(device, sent, stack)):
            if isinstance(found, Exception):
                raise found
            runs.append(found)
        by_address = dict(zip(remote, runs, strict=True))
        sources: list[ViewSource] = []
        for address in dict.fromkeys(devices.addresses):
            if address in by_address:
                sources += by_address[address].sources
                skipped += by_address[address].skipped
            else:
                sources += open_artifacts(self.bundle, self.artifacts, skipped, stack, asked=self.asked)
        return sources, runs

    def _run(self, device: RemoteDevice, images: Sequence[SentImage], stack: ExitStack) -> DeviceRun:
        run = DeviceRun(device, self.bundle, self.artifacts, images, self.track, asked=self.asked)
        stack.callback(run.close)
        return run
