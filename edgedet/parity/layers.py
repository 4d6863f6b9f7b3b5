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
from edgedet.parity.snr import SNR_LIMIT_DB
from edgedet.spec import Value

# OpenVINO keeps the ends of a range, in float32.
_SCALE_TOLERANCE = 1e-5
# A kernel that rounds as it should moves the few sums that lie next to a half step: 0.5 % was the most that
# was measured. One that cuts off moves half.
_MOST_MOVED = 0.05
# Nothing is rounded behind the last layer.
_SAME_OUTPUT_DB = 80.0


class LayerDifference(Value):
    """One quantized tensor of an artifact, or a raw output, against its reference over all images looked at.

    Attributes:
        name: Node of the captured graph that gives it, or the output.
        module: Path of its module in the detector, or "".
        local_snr_db: Where the reference computes it from what the runtime read; as `OutputDifference`.
        snr_db: Where the reference computes everything before it as well.
        max_steps: Largest local difference, in steps of its scale; None for an output.
        moved_fraction: Share of elements with a local difference of half a step or more, likewise.
        expected_grid: Scale and zero point of the reference, likewise. Formats with signed and with unsigned
            integers have zero points of their own.
        grid: Those of the artifact, likewise.
    """

    name: str
    module: str
    local_snr_db: float
    snr_db: float
    max_steps: float | None = None
    moved_fraction: float | None = None
    expected_grid: tuple[float, int] | None = None
    grid: tuple[float, int] | None = None

    @property
    def has_expected_grid(self) -> bool:
        """Whether artifact and reference agree on scale and zero point, but for how formats round scales."""
        if self.grid is None or self.expected_grid is None:
            return True
        same_scale = math.isclose(self.grid[0], self.expected_grid[0], rel_tol=_SCALE_TOLERANCE)
        return same_scale and self.grid[1] == self.expected_grid[1]

    @property
    def is_rounding(self) -> bool:
        """Whether few values are one step off and none is more, or an output is as good as equal."""
        if self.max_steps is None:
            return self.local_snr_db >= _SAME_OUTPUT_DB
        return self.max_steps <= 1 and (self.moved_fraction or 0.0) <= _MOST_MOVED

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
        outputs_snr_db: Raw outputs of the inferences that gave the layers against those of plain ones: 200
            where both are the same kernels.
        layers: Those that the runtime has, in the order of the graph, and the raw outputs.
    """

    images: int
    quantized: int
    missing: int
    outputs_snr_db: float
    layers: tuple[LayerDifference, ...]

    @property
    def accounts_for_noise(self) -> bool:
        """Whether nothing but half steps that are rounded differently can be what outputs differ by."""
        return (
            self.quantized > 0
            and not self.missing
            and self.outputs_snr_db == SNR_LIMIT_DB
            and all(layer.is_rounding for layer in self.layers)
        )

    @property
    def summary(self) -> str:
        """One sentence for readers."""
        missing = f", {self.missing} of which the runtime does not have" if self.missing else ""
        return (
            f"{self.quantized} layers{missing}; from the same integers {self.worst.label} differs most, "
            f"{self.worst.local_snr_db:.1f} dB"
        )

    @property
    def worst(self) -> LayerDifference:
        """The quantized tensor that differs most by itself."""
        quantized = [layer for layer in self.layers if layer.max_steps is not None]
        return min(quantized or self.layers, key=lambda layer: layer.local_snr_db)

    def first_over(self, snr_db: float) -> LayerDifference | None:
        """The first layer that differs by itself, None if none does.

        It has another scale or zero point, or more noise than that which is more than rounding.
        """
        return next(
            (
                layer
                for layer in self.layers
                if not layer.has_expected_grid or (layer.local_snr_db < snr_db and not layer.is_rounding)
            ),
            None,
        )


class LayerComparison(Protocol):
    """Compares a runtime's layers with a reference's, over images that are seen once."""

    def add(self, feeds: Mapping[str, Floats], found: Intermediates, outputs: Mapping[str, Floats]) -> None:
        """Take one image, what the runtime made of it, and its raw outputs where no layers are read."""

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

    def run(self, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        """Outputs by name."""

    def intermediates(self, feeds: Mapping[str, Floats]) -> Intermediates:
        """Those of one inference; nothing where the vendor does not give them."""
