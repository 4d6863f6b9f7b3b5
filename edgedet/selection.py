"""Which artifacts of a bundle a measurement covers, which it does not, and why."""

from __future__ import annotations

from collections.abc import Sequence

from edgedet import registry
from edgedet.bundle import Artifact, Bundle, artifact_name
from edgedet.errors import MissingDeviceError, MissingError, UsageError
from edgedet.spec import PRECISIONS, Precision, Value

# The checkpoint in PyTorch: a bundle has it in float and for one image only, and that it has no other is not
# worth a word.
FLOAT = "eager"


class Skipped(Value):
    """A runtime and precision that was left out, and why.

    Attributes:
        runtime: Name of the runtime.
        precision: Precision of the artifact.
        reason: One sentence.
        missing: Whether there is an artifact, and what would run it is missing.
    """

    runtime: str
    precision: str
    reason: str
    missing: bool = False


def select(
    bundle: Bundle,
    runtimes: Sequence[str] | None,
    precisions: Sequence[str] | None,
    leave_out: Sequence[str] = (),
    batches: Sequence[int] = (1,),
) -> tuple[list[Artifact], list[Skipped]]:
    """Artifacts in the order of precisions, then runtimes and then batches, and what is not there.

    Args:
        bundle: Where they are.
        runtimes: Names of runtimes that are asked for; None for all.
        precisions: Precisions that are asked for; None for all.
        leave_out: Runtimes that are not taken unless they are asked for.
        batches: How many images one inference takes; others of the bundle are as if they were not there.

    Raises:
        UsageError: A name does not exist, the bundle lacks what was asked for, or nothing is selected.
        MissingError: What was asked for could not be built where the bundle was exported.
    """
    precisions = check_names(runtimes, precisions)
    _check_batches(bundle, batches)
    there = [a for a in bundle.manifest.artifacts if a.batch in batches]
    available = {(a.runtime, a.precision, a.batch): a for a in there if a.runtime}
    everything = sorted({runtime for runtime, *_ in available} - set(leave_out))
    wanted = everything if runtimes is None else list(dict.fromkeys(runtimes))
    present = {precision for runtime, precision, _ in available if runtime in wanted}
    chosen = [p for p in PRECISIONS if p in (present if precisions is None else precisions)]
    keys = [(r, p, n) for p in chosen for r in wanted for n in dict.fromkeys(batches)]
    artifacts = [available[key] for key in keys if key in available]
    if not artifacts:
        for name in runtimes or ():
            if bundle.not_built(name):
                raise bundle.no_artifact(name, None)
        raise _nothing(bundle, [*(runtimes or ()), *(precisions or ())])
    absent = [key for key in keys if key not in available]
    missed = [(r, p, n) for r, p, n in absent if r != FLOAT or n == 1]
    if missed and runtimes is not None and precisions is not None:
        bundle.artifact(*missed[0])  # raises, listing what there is
    skipped = [
        Skipped(runtime=r, precision=p, reason=_absence(bundle, r, p, n))
        for r, p, n in absent
        if r != FLOAT or (n > 1 and runtimes is not None)
    ]
    if runtimes is None:
        skipped += [_not_runnable(a) for a in there if not a.runtime]
    return artifacts, skipped


def _check_batches(bundle: Bundle, batches: Sequence[int]) -> None:
    have = {artifact.batch for artifact in bundle.manifest.artifacts}
    unknown = [batch for batch in batches if batch not in have]
    wanted = ",".join(map(str, sorted({*have, *batches})))
    if unknown and have:
        raise UsageError(
            f"{bundle.root} has no artifact for that batch",
            got=", ".join(map(str, unknown)),
            expected="some of " + ", ".join(map(str, sorted(have))),
            fix=f"choose some of those, or export again with --batch {wanted}",
        )


def check_names(
    runtimes: Sequence[str] | None, precisions: Sequence[str] | None
) -> tuple[Precision, ...] | None:
    """Refuse names that do not exist; returns the precisions as they are spelt, None for None.

    Raises:
        UsageError: One does not.
    """
    for name in runtimes or ():
        registry.RUNTIMES.entry(name)
    return None if precisions is None else tuple(map(check_precision, precisions))


def check_precision(name: str) -> Precision:
    """The precision of that name, in whatever case it is written.

    Raises:
        UsageError: There is none.
    """
    for precision in PRECISIONS:
        if precision == name.lower():
            return precision
    raise UsageError(
        "there is no precision of that name",
        got=repr(name),
        expected="one of " + ", ".join(PRECISIONS),
        fix="use one of those",
    )


def cannot_run(artifact: Artifact, why: MissingError, where: str = "") -> Skipped:
    """An artifact that is left out because a machine, here or at an address, lacks what runs it.

    Nothing is missing where the export could only build it: it is for another machine.
    """
    reason = str(why)
    if artifact.verified_by:
        lacks = "" if isinstance(why, MissingDeviceError) else f"; {why.got}. Fix: {why.fix}"
        reason = (f"{where}: " if where else "") + artifact.note + lacks
    return Skipped(
        runtime=artifact.runtime,
        precision=artifact.precision,
        reason=reason,
        missing=not artifact.verified_by,
    )


def _not_runnable(artifact: Artifact) -> Skipped:
    reason = _in_batch(artifact.batch) + (artifact.note or "no runtime opens this file as it is")
    return Skipped(runtime=artifact.target, precision=artifact.precision, reason=reason)


def _absence(bundle: Bundle, runtime: str, precision: str, batch: int) -> str:
    unbuilt = bundle.not_built(runtime, precision, batch)
    why = "not in the bundle" if unbuilt is None else unbuilt.note or "not built where it was exported"
    return _in_batch(batch) + why


def _in_batch(batch: int) -> str:
    return f"in a batch of {batch}, " if batch > 1 else ""


def _nothing(bundle: Bundle, asked: Sequence[str]) -> UsageError:
    have = ", ".join(
        artifact_name(a.runtime, a.precision, a.batch) for a in bundle.manifest.artifacts if a.runtime
    )
    return UsageError(
        f"{bundle.root} has no artifact of those that were asked for",
        got=" ".join(asked) or "all runtimes and precisions",
        expected=f"some of {have or 'nothing: the bundle is empty'}",
        fix="choose some of those, or export the bundle again with more targets",
    )


def no_calibration() -> UsageError:
    """The error of INT8 that was asked for without what gives its ranges."""
    return UsageError(
        "INT8 needs images to calibrate on",
        got="no calibration images",
        expected="some dozens of images like those the detector will see; they need no labels",
        fix="--calibration DIR, --calibration builtin, or the calibration.json of an earlier bundle",
    )
