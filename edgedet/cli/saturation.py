"""What `edgedet inspect` shows of sums that overflow on x86 processors without VNNI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgedet.bundle import Artifact, Bundle
from edgedet.cli.output import Output
from edgedet.errors import MissingError
from edgedet.proof import Proof, prove_artifact
from edgedet.saturation import PAIR_LIMIT

# Why nothing was proved, or None for an artifact without integers of x86 kernels.
Found = Proof | MissingError | None


def found_of(bundle: Bundle, artifact: Artifact) -> Found:
    """What is proved of an artifact whose files are whole."""
    try:
        return prove_artifact(bundle, artifact)
    except MissingError as exc:
        return exc


def cell(found: Found) -> str | None:
    """For a table."""
    if isinstance(found, MissingError):
        return f"cannot tell: {found.fix}"
    return None if found is None else found.verdict


def record(found: Found) -> dict[str, Any] | None:
    """As JSON."""
    if isinstance(found, MissingError):
        return {"exact": None, "missing": found.fix}
    return None if found is None else found.to_record()


def show_inexact(proofs: Mapping[str, Found], output: Output) -> None:
    """Name the layers of each file that is not exact, file by file."""
    for name, found in proofs.items():
        if isinstance(found, Proof) and not found.is_exact:
            output.line()
            output.line(
                f"{name}: {found.verdict} on x86 processors without VNNI, where |w1| + |w2| of neighbours "
                f"of one sign may be {PAIR_LIMIT} at most; a new export mends it"
            )
            rows: list[Sequence[object]] = [(one.layer, one.channels, one.largest) for one in found.overflows]
            rows += [(layer, None, None) for layer in found.unread]
            output.table(("layer", "channels", "|w1| + |w2|"), rows)
