"""The artifacts that a parity run holds open."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from edgedet import registry
from edgedet.bundle import Artifact, Bundle
from edgedet.errors import MissingError
from edgedet.pipeline import RuntimeLike
from edgedet.selection import FLOAT, Skipped, select

REFERENCE = (FLOAT, "fp32")


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """An artifact and the runtime that holds it open."""

    artifact: Artifact
    runtime: RuntimeLike


def open_reference(bundle: Bundle, stack: ExitStack) -> Opened:
    """The float detector in PyTorch, closed with the stack.

    Raises:
        UsageError: The bundle has none.
        MissingError: PyTorch is not installed.
    """
    return _open(bundle, bundle.artifact(*REFERENCE), stack)


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
    return Opened(artifact, runtime)
