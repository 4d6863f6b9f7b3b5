"""Artifacts on another machine, as sources of views for parity."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgedet.bundle import Artifact, Bundle
from edgedet.data.dataset import LabelledImage
from edgedet.devices import RemoteDevice
from edgedet.devices.blob import Blob, bundle_files
from edgedet.devices.records import Record, error_from
from edgedet.environment import Environment
from edgedet.errors import EdgedetError, MissingError
from edgedet.intermediate import Intermediate, Intermediates
from edgedet.parity.foreign import foreign_fields
from edgedet.parity.frame import Frame
from edgedet.parity.input_tensor import InputComparison
from edgedet.parity.lane import Layers, UnreadImageError
from edgedet.parity.on_device import tensor_sha256
from edgedet.parity.overflow import saturates
from edgedet.parity.view import View
from edgedet.preprocess import preprocess
from edgedet.progress import Track
from edgedet.selection import Skipped, cannot_run
from edgedet.spec import DetectorSpec

_BUNDLE = "bundle"
# Records that are read before they are looked at.
_READ_AHEAD = 8


@dataclass(frozen=True, slots=True, eq=False)
class SentImage:
    """An image for devices.

    Attributes:
        blob: Its file, or its pixels.
        tensor_sha256: Of its input tensor as it is made here.
    """

    blob: Blob
    tensor_sha256: str

    @staticmethod
    def of(image: LabelledImage, spec: DetectorSpec) -> SentImage:
        """The image as it is in the data set."""
        tensor, _ = preprocess(image.image_bgr, spec.input)
        return SentImage(Blob.of_image(image), tensor_sha256(tensor))

    @property
    def name(self) -> str:
        """Its path on a device."""
        return f"images/{self.blob.sha256}"

    def order(self) -> dict[str, str]:
        """As `on_device` reads it."""
        return {"path": self.name, "tensor_sha256": self.tensor_sha256}


class DeviceRun:
    """A device that looks at images while the host does, at most some images ahead.

    Args:
        device: Connected.
        bundle: Here.
        artifacts: What to run.
        images: In the order in which `next_image` is called for them.
        asked: Whether the runtimes were asked for by name, so that a missing one is an error.
        track: Shows how far the device is.

    Attributes:
        sources: The artifacts that could be opened.
        skipped: The others.
        environment: The device's.
        failure: Why it sees no more images; None as long as it does.

    Raises:
        MissingError: A runtime that was asked for is not there.
        EdgedetError: The device failed.
    """

    def __init__(
        self,
        device: RemoteDevice,
        bundle: Bundle,
        artifacts: Sequence[Artifact],
        images: Sequence[SentImage],
        track: Track,
        *,
        asked: bool,
    ) -> None:
        self.device, self._images = device, images
        self._records: queue.Queue[Record | BaseException] = queue.Queue(_READ_AHEAD)
        self._stopped = False
        self.failure: EdgedetError | None = None
        self.current = Record({})
        files = {image.name: image.blob for image in images}
        device.send({**bundle_files(bundle, artifacts, _BUNDLE), **files}, track)
        order = {
            "bundle": _BUNDLE,
            "artifacts": [(artifact.runtime, artifact.precision) for artifact in artifacts],
            "images": [image.order() for image in images],
        }
        shown = track(device.run("views", order), str(device.address), len(images) + 1)
        self._thread = threading.Thread(target=self._read, args=(shown,), daemon=True)
        self._thread.start()
        self.sources: list[RemoteArtifact] = []
        self.skipped: list[Skipped] = []
        try:
            self.environment = self._meet(bundle, artifacts, asked=asked)
        except BaseException:
            self.close()
            raise

    def next_image(self) -> None:
        """Wait until the device has seen the next image; one that has failed sees no more."""
        if self.failure is None:
            try:
                self.current = self._take()
            except EdgedetError as exc:
                self.failure = exc

    def wait(self) -> None:
        """Wait until the job has ended, so that the device can be asked for something else."""
        self._thread.join()

    def layers(self, source: RemoteArtifact, frame: Frame) -> Layers:
        """What an artifact's layers make of an image, seen once more; only when all images were seen."""
        artifact = source.artifact
        order = {
            "bundle": _BUNDLE,
            "artifact": (artifact.runtime, artifact.precision),
            "images": [self._images[frame.number].order()],
        }
        (record,) = self.device.run("intermediates", order)
        arrays = record.arrays
        tensors = tuple(
            Intermediate(arrays[f"integers/{number}"], scale, zero_point)
            for number, (scale, zero_point) in enumerate(record.header["grids"])
        )
        beside = {n.removeprefix("beside/"): a for n, a in arrays.items() if n.startswith("beside/")}
        outputs = {n.removeprefix("outputs/"): a for n, a in arrays.items() if n.startswith("outputs/")}
        return {source.spec.input.name: arrays["tensor"]}, Intermediates(tensors, beside), outputs

    def close(self) -> None:
        """Stop reading, and leave nothing on the device."""
        self._stopped = True
        if self._thread.is_alive():
            self.device.interrupt()
        while self._thread.is_alive():
            while not self._records.empty():  # it may wait for room
                self._records.get()
            self._thread.join(0.05)
        self.device.close()

    def _meet(self, bundle: Bundle, artifacts: Sequence[Artifact], *, asked: bool) -> Environment:
        """Sort artifacts by whether the device could open them."""
        first = self._take().header
        for number, (artifact, about) in enumerate(zip(artifacts, first["opened"], strict=True)):
            if "error" not in about:
                spec = DetectorSpec.from_json(about["spec"], source=str(self.device.address))
                self.sources.append(RemoteArtifact(self, number, artifact, spec, bundle.spec_of(artifact)))
                continue
            error = error_from(about, str(self.device.address))
            if asked or not isinstance(error, MissingError):
                raise error
            self.skipped.append(cannot_run(artifact, error, str(self.device.address)))
        if not self.sources:
            raise error_from(first["opened"][0], str(self.device.address))
        return Environment.model_validate(first["environment"])

    def _read(self, records: Iterator[Record]) -> None:
        try:
            for record in records:
                self._records.put(record)
                if self._stopped:
                    return
        except BaseException as exc:  # raised again where it is waited for
            self._records.put(exc)

    def _take(self) -> Record:
        found = self._records.get()
        if isinstance(found, BaseException):
            raise found
        return found


class RemoteArtifact:
    """One artifact on a device: a `ViewSource` for the image that its run saw last."""

    def __init__(
        self, run: DeviceRun, number: int, artifact: Artifact, spec: DetectorSpec, expected: DetectorSpec
    ) -> None:
        self._run, self._number = run, str(number)
        self.artifact, self.spec = artifact, spec
        self.device = str(run.device.address)
        self.input = InputComparison()
        self.foreign_fields = foreign_fields(spec, expected)

    @property
    def saturates(self) -> bool:
        """Whether the device's processor adds INT8 products in 16 bits."""
        processor = self._run.environment.processor
        return processor is not None and saturates(processor)

    def view(self, frame: Frame) -> View:
        """What the device made of it."""
        if self._run.failure is not None:
            raise self._run.failure
        record = self._run.current
        if "unread" in record.header:
            self.input.add_unread(frame.image.image_id, record.header["unread"])
            raise UnreadImageError
        if self._number in record.header["errors"]:
            raise error_from(record.header["errors"][self._number], self.device)
        found = record.header.get("tensors", {}).get(self._number)
        tensor = None if found is None else record.arrays.get(f"tensor/{found}")
        if tensor is not None:
            self.input.add(frame.tensor, tensor)
        elif found is not None:
            self.input.unseen += 1
        return View.from_arrays(record.arrays, f"{self._number}/")

    def layers(self, frame: Frame) -> Layers:
        """What its layers make of it."""
        return self._run.layers(self, frame)
