"""The artifacts that a parity run holds open."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from edgedet import registry
from edgedet.bundle import Artifact, Bundle
from edgedet.errors import BundleError, MissingError
from edgedet.pipeline import RuntimeLike
from edgedet.selection import FLOAT, Skipped, select
from edgedet.spec import DetectorSpec

REFERENCE = (FLOAT, "fp32")


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """An artifact and the runtime that holds it open.

    Attributes:
        artifact: Its entry in the manifest.
        runtime: With the spec that is embedded in the file.
        expected: The spec that the bundle says is embedded.
    """

    artifact: Artifact
    runtime: RuntimeLike
    expected: DetectorSpec

    @property
    def foreign_fields(self) -> tuple[str, ...]:
        """Fields in which the embedded spec is not the expected one.

        A checkpoint was there before the bundle and does not tell the bundle's provenance.
        """
        own = self.runtime.spec
        fields = set(DetectorSpec.model_fields)
        if self.artifact.runtime == FLOAT:
            fields -= {"provenance"}
        return tuple(sorted(name for name in fields if getattr(own, name) != getattr(self.expected, name)))


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
            got=f"another {', '.join(foreign)}",
            expected="the detector that bundle.json describes",
            fix="export again",
        )
    return reference


def open_selected(
    bundle: Bundle, runtimes: Sequence[str] | None, precisions: Sequence[str] | None, stack: ExitStack
) -> tuple[list[Opened], list[Skipped]]:
    """Open what was asked for, or everything but the reference, closed with the stack.

    Runtimes that were not asked for by name may be missing on this machine; they are skipped.

    Raises:
        UsageError: A name does not exist, the bundle lacks what was asked for, or nothing is left to compare.
        MissingError: A runtime that was asked for is not installed, or none of them is.
    """
    artifacts, skipped = select(bundle, runtimes, precisions, leave_out=(FLOAT,))
    opened: list[Opened] = []
    missing: MissingError | None = None
    for artifact in artifacts:
        try:
            opened.append(_open(bundle, artifact, stack))
        except MissingError as exc:
            if runtimes is not None:
                raise
            missing = missing or exc
            skipped.append(Skipped(runtime=artifact.runtime, precision=artifact.precision, reason=str(exc)))
    if not opened and missing is not None:
        raise missing
    return opened, skipped


def _open(bundle: Bundle, artifact: Artifact, stack: ExitStack) -> Opened:
    """Open without a spec: the runtime reads the one in its file, so that a lone copy is what is judged."""
    path = bundle.path_of(artifact)
    runtime: RuntimeLike = registry.RUNTIMES.load(artifact.runtime)(path)
    stack.callback(runtime.close)
    return Opened(artifact, runtime, bundle.spec_of(artifact))
