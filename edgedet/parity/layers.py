"""Which layer of an integer artifact its runtime computes differently.

Differences of one step in early layers become many in late ones, so that where an artifact leaves its
reference says little about where a fault is. Each layer is therefore computed again by the reference from the
very integers that the runtime's own layer read: what differs then is the work of that layer alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from edgedet.boxes import Floats
from edgedet.intermediate import Intermediates
from edgedet.spec import Value

# OpenVINO keeps the ends of a range, in float32.
_SCALE_TOLERANCE = 1e-5


class LayerDifference(Value):
    """One quantized tensor of an artifact, or a raw output, against its reference over all images looked at.

    Attributes:
        name: Node of the captured graph that gives it, or the output.
        module: Path of its module in the detector, or "".
        local_snr_db: Where the reference computes it from what the runtime read; as `OutputDifference`.
        snr_db: Where the reference computes everything before it as well.
        max_steps: Largest local difference, in steps of its scale; None for an output.
        moved_fraction: Share of elements with a local difference of half a step or more, likewise.
        expected_scale: That of the reference, likewise.
        scale: That of the artifact, likewise.
    """

    name: str
    module: str
    local_snr_db: float
    snr_db: float
    max_steps: float | None = None
    moved_fraction: float | None = None
    expected_scale: float | None = None
    scale: float | None = None

    @property
    def has_expected_scale(self) -> bool:
        """Whether artifact and reference agree on the scale, but for how formats round it."""
        if self.scale is None or self.expected_scale is None:
            return True
        return math.isclose(self.scale, self.expected_scale, rel_tol=_SCALE_TOLERANCE)

    @property
    def label(self) -> str:
        """Name for readers."""
        return f"{self.module} ({self.name})" if self.module else self.name


class LayersReport(Value):
    """The layers of one artifact.

    Attributes:
        images: Images that were looked at.
        quantized: Quantized tensors of the reference, without those that are only moved.
        missing: How many of them the runtime does not have.
        layers: Those that the runtime has, in the order of the graph, and the raw outputs.
    """

    images: int
    quantized: int
    missing: int
    layers: tuple[LayerDifference, ...]

    @property
    def is_complete(self) -> bool:
        """Whether the runtime has every quantized tensor of the reference."""
        return self.quantized > 0 and not self.missing

    @property
    def worst(self) -> LayerDifference:
        """That which differs most by itself."""
        return min(self.layers, key=lambda layer: layer.local_snr_db)

    def first_below(self, snr_db: float) -> LayerDifference | None:
        """The first layer that differs by itself more than that, or has another scale; None if none does."""
        return next(
            (layer for layer in self.layers if layer.local_snr_db < snr_db or not layer.has_expected_scale),
            None,
        )


class LayerComparison(Protocol):
    """Compares a runtime's layers with a reference's, over images that are seen once."""

    def add(self, feeds: Mapping[str, Floats], found: Intermediates) -> None:
        """Take one image and what the runtime made of it."""

    def report(self) -> LayersReport:
        """What was found."""


@runtime_checkable
class LayerReference(Protocol):
    """A reference that can compute its layers one by one."""

    def layers(self) -> LayerComparison:
        """A new comparison with them."""


@runtime_checkable
class IntermediateSource(Protocol):
    """A runtime that gives its integer tensors; the contract is in `edgedet_runtimes.shell`."""

    def intermediates(self, feeds: Mapping[str, Floats]) -> Intermediates:
        """Those of one inference; nothing where the vendor does not give them."""
