"""The artifacts that a parity run holds open."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from edgedet.bundle import Artifact, Bundle
from edgedet.devices import LOCAL
from edgedet.errors import BundleError, MissingError
from edgedet.intermediate import Intermediates
from edgedet.parity.foreign import ForeignField, foreign_fields
from edgedet.parity.frame import Frame
from edgedet.parity.input_tensor import InputComparison
from edgedet.parity.lane import Layers
from edgedet.parity.layers import IntermediateSource
from edgedet.parity.overflow import saturates
from edgedet.parity.view import View, open_alone
from edgedet.pipeline import RuntimeLike
from edgedet.preprocess import preprocess
from edgedet.selection import FLOAT, Skipped, cannot_run
from edgedet.spec import DetectorSpec

REFERENCE = (FLOAT, "fp32")


@dataclass(slots=True, eq=False)
class Opened:
    """An artifact and the runtime that holds it open: a `ViewSource` on this machine.

    Attributes:
        artifact: Its entry in the manifest.
        runtime: With the spec that is embedded in the file.
        expected: The spec that the bundle says is embedded.
        device: This machine.
        input: Its input tensors against those of the bundle's spec.
        saturates: Whether this processor adds INT8 products in 16 bits.
    """

    artifact: Artifact
    runtime: RuntimeLike
    expected: DetectorSpec
    device: str = LOCAL
    input: InputComparison = field(default_factory=InputComparison)
    saturates: bool = field(default_factory=saturates)

    @property
    def spec(self) -> DetectorSpec:
        """The spec in the file."""
        return self.runtime.spec

    @property
    def foreign_fields(self) -> tuple[ForeignField, ...]:
        """Fields in which the spec in the file is not the expected one.

        A checkpoint was there before the bundle and does not tell the bundle's provenance.
        """
        found = foreign_fields(self.spec, self.expected)
        if self.artifact.runtime == FLOAT:
            return tuple(one for one in found if one.field != "provenance")
        return found

    def view(self, frame: Frame) -> View:
        """Run on the tensor that the artifact's own spec asks for, and decode as that says."""
        tensor, geometry = frame.tensor, frame.geometry
        if self.spec.input != frame.spec.input:
            tensor, geometry = preprocess(frame.image.image_bgr, self.spec.input)
            self.input.add(frame.tensor, tensor)
        return View.of(self.runtime, tensor, self.spec, geometry)

    def layers(self, frame: Frame) -> Layers:
        """What the layers make of an image; no tensors where the runtime gives none."""
        feeds = {self.spec.input.name: frame.tensor}
        if not isinstance(self.runtime, IntermediateSource):
            return feeds, Intermediates(), {}
        return feeds, self.runtime.intermediates(feeds), self.runtime.run(feeds)


def open_reference(bundle: Bundle, stack: ExitStack) -> Opened:
    """The float detector in PyTorch, closed with the stack.

    Raises:
        UsageError: The bundle has none.
        BundleError: It is not the detector that the bundle describes.
        MissingError: PyTorch is not installed.
    """
    reference = _open(bundle, bundle.artifact(*REFERENCE), stack)
    if foreign := reference.foreign_fields:
        raise BundleError(
            f"{reference.artifact.files[0].path} cannot be the reference",
            got=f"another {', '.join(one.path for one in foreign)}",
            expected="the detector that bundle.json describes",
            fix="export again",
        )
    return reference


def open_artifacts(
    bundle: Bundle, artifacts: Sequence[Artifact], skipped: list[Skipped], stack: ExitStack, *, asked: bool
) -> list[Opened]:
    """Open artifacts on this machine, closed with the stack.

    Args:
        bundle: Where they are.
        artifacts: Those that are wanted.
        skipped: Takes those whose runtime is not installed.
        stack: Closes them.
        asked: Whether their runtimes were asked for by name, so that a missing one is an error.

    Raises:
        MissingError: A runtime that was asked for is not installed, or none of them is.
    """
    opened: list[Opened] = []
    missing: MissingError | None = None
    for artifact in artifacts:
        try:
            opened.append(_open(bundle, artifact, stack))
        except MissingError as exc:
            if asked:
                raise
            missing = missing or exc
            skipped.append(cannot_run(artifact, exc))
    if not opened and missing is not None:
        raise missing
    return opened


def _open(bundle: Bundle, artifact: Artifact, stack: ExitStack) -> Opened:
    runtime = open_alone(bundle, artifact)
    stack.callback(runtime.close)
    return Opened(artifact, runtime, bundle.spec_of(artifact))
