"""Which artifacts of a bundle are compared, which are not, and why."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from edgedet import registry
from edgedet.bundle import Artifact, Bundle
from edgedet.errors import MissingError, UsageError
from edgedet.parity.report import Skipped
from edgedet.pipeline import RuntimeLike
from edgedet.spec import PRECISIONS, Precision

REFERENCE = ("eager", "fp32")


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
    artifacts, skipped = select(bundle, runtimes, precisions)
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


def select(
    bundle: Bundle, runtimes: Sequence[str] | None, precisions: Sequence[str] | None
) -> tuple[list[Artifact], list[Skipped]]:
    """Artifacts in the order of precisions and then runtimes, and what is not there.

    Raises:
        UsageError: A name does not exist, the bundle lacks what was asked for, or nothing is left to compare.
    """
    for name in runtimes or ():
        registry.RUNTIMES.entry(name)
    for precision in precisions or ():
        _check_precision(precision)
    available = {(a.runtime, a.precision): a for a in bundle.manifest.artifacts if a.runtime}
    wanted_runtimes = sorted({runtime for runtime, _ in available}) if runtimes is None else list(runtimes)
    present = {precision for _, precision in available}
    wanted_precisions = [p for p in PRECISIONS if p in (present if precisions is None else precisions)]
    artifacts: list[Artifact] = []
    skipped = [
        Skipped(runtime=a.target, precision=a.precision, reason=a.note or "no runtime opens it as it is")
        for a in bundle.manifest.artifacts
        if not a.runtime and runtimes is None
    ]
    for key in ((runtime, precision) for precision in wanted_precisions for runtime in wanted_runtimes):
        if runtimes is None and key[0] == REFERENCE[0]:
            continue  # the reference and its relatives are what the others are compared with
        if key in available:
            artifacts.append(available[key])
        elif runtimes is not None and precisions is not None:
            bundle.artifact(*key)  # raises, listing what there is
        else:
            skipped.append(Skipped(runtime=key[0], precision=key[1], reason="not in the bundle"))
    if not artifacts:
        raise _nothing_to_compare(bundle, runtimes, precisions)
    return artifacts, skipped


def _open(bundle: Bundle, artifact: Artifact, stack: ExitStack) -> Opened:
    """Open without a spec: the runtime reads the one in its file, so that a lone copy is what is judged."""
    path = bundle.path_of(artifact)
    runtime: RuntimeLike = registry.RUNTIMES.load(artifact.runtime)(path)
    stack.callback(runtime.close)
    return Opened(artifact, runtime)


def _check_precision(precision: str) -> Precision:
    for known in PRECISIONS:
        if precision == known:
            return known
    raise UsageError(
        "there is no such precision",
        got=precision,
        expected=", ".join(PRECISIONS),
        fix="use one of those",
    )


def _nothing_to_compare(
    bundle: Bundle, runtimes: Sequence[str] | None, precisions: Sequence[str] | None
) -> UsageError:
    have = ", ".join(f"{a.runtime} {a.precision}" for a in bundle.manifest.artifacts if a.runtime)
    asked = [*(runtimes or ()), *(precisions or ())]
    return UsageError(
        f"{bundle.root} has nothing to compare with the float detector",
        got=" ".join(asked) or "all runtimes and precisions",
        expected=f"some of {have}",
        fix="choose some of those, or export the bundle again with more targets",
    )
