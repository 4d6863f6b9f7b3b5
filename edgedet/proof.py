"""Whether an artifact computes the same sums on every x86 processor: proved from its weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedet import registry
from edgedet.bundle import Artifact, Bundle
from edgedet.saturation import PAIR_LIMIT, IntegerLayer, Overflow, overflows
from edgedet.spec import CALIBRATED

# Whose kernels may multiply int8 weights with 8-bit activations.
INTEGER_PRECISIONS = CALIBRATED | {"int8-dynamic"}

_NAMED = 3


@dataclass(frozen=True, slots=True)
class Proof:
    """What the integers of an artifact tell of its sums on x86 processors without VNNI.

    Attributes:
        layers: How many layers could saturate, by their kind.
        overflows: Those of which a sum can overflow.
        unread: Names of those whose weights the file does not tell, or that are no int8 matrices.
    """

    layers: int
    overflows: tuple[Overflow, ...]
    unread: tuple[str, ...]

    @staticmethod
    def of(layers: Iterable[IntegerLayer]) -> Proof:
        """What is known of an artifact with these layers."""
        found = tuple(layers)
        unread = tuple(layer.name for layer in found if not layer.is_read)
        return Proof(len(found), overflows(found), unread)

    @property
    def is_exact(self) -> bool:
        """Whether no sum can overflow."""
        return not self.overflows and not self.unread

    @property
    def verdict(self) -> str:
        """A few words for a table."""
        if self.is_exact:
            return "exact on every x86"
        if self.overflows:
            return f"{len(self.overflows)} of {self.layers} layers can overflow"
        return f"cannot tell: weights of {len(self.unread)} layers unread"

    @property
    def reasons(self) -> tuple[str, ...]:
        """What is not exact, each layer by its name."""
        return (
            *(
                f"{one.layer}: |w1| + |w2| up to {one.largest} in {one.channels} channels, "
                f"{PAIR_LIMIT} at most without VNNI"
                for one in self.overflows
            ),
            *(f"{name}: cannot tell, its weights are no constant that can be read" for name in self.unread),
        )

    @property
    def overflowing(self) -> str:
        """The layers that can overflow, as a part of a sentence: the first by name and sum, and how many."""
        named = ", ".join(f"{one.layer} (|w1| + |w2| = {one.largest})" for one in self.overflows[:_NAMED])
        more = len(self.overflows) - _NAMED
        return named + (f" and {more} more" if more > 0 else "")

    def to_record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "exact": self.is_exact,
            "layers": self.layers,
            "overflows": [
                {"layer": one.layer, "channels": one.channels, "largest": one.largest}
                for one in self.overflows
            ],
            "unread": list(self.unread),
        }


def prove(runtime: str, path: Path) -> Proof | None:
    """Read the integers of a file; None where its runtime computes none on x86 processors.

    Raises:
        BundleError: The file cannot be read.
        MissingExtraError: The runtime is not installed, whose package reads the file.
    """
    layers = registry.RUNTIMES.load(runtime).integer_layers(path)
    return None if layers is None else Proof.of(layers)


def prove_artifact(bundle: Bundle, artifact: Artifact) -> Proof | None:
    """The same of an artifact of a bundle; None also for one in float, and one that nothing here opens.

    Raises:
        BundleError: A file is not what was exported.
        MissingExtraError: As `prove`.
    """
    if artifact.precision not in INTEGER_PRECISIONS:
        return None
    return prove(artifact.runtime, bundle.path_of(artifact)) if artifact.runtime else None
