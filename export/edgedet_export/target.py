"""The contract of a target: a captured graph and a spec in, files that a runtime opens out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from edgedet.errors import MissingError
from edgedet.spec import DetectorSpec, Precision

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Source:
    """What is exported: a float graph, or one with quantizers in the target's encoding.

    A target makes fp16 and int8-dynamic from the float graph, which is also what they are compared with.

    Attributes:
        graph_module: Operators of ATen, and of `quantized_decomposed` where it is calibrated.
        example_inputs: Tensors of the input's shape.
        spec: Goes into the artifact; its outputs are the graph's, in order.
    """

    graph_module: GraphModule
    example_inputs: tuple[Tensor, ...]
    spec: DetectorSpec


@dataclass(frozen=True, slots=True)
class Exported:
    """What a target wrote.

    Attributes:
        files: The file that the runtime opens, then those that belong to it.
        missing: Why the device format could not be made from them here, where it could not.
        stand_in: ONNX of the same graph, which ONNX Runtime verifies where this machine lacks what runs the
            device format.
        note: What the bundle says of it.
        build_seconds: What building the device format took, where that is a step of its own.
    """

    files: tuple[Path, ...]
    missing: MissingError | None = None
    stand_in: Path | None = None
    note: str = ""
    build_seconds: float | None = None


@runtime_checkable
class PerGpu(Protocol):
    """A target whose device format can be for one GPU."""

    def for_compute_capability(self, name: str) -> Target:
        """The target for GPUs of one compute capability.

        Raises:
            UsageError: There is none of that name.
        """


class Target(Protocol):
    """One device format.

    Attributes:
        runtime: The runtime that opens and verifies it, a name of `edgedet.registry.RUNTIMES`.
        encodings: For each calibrated precision, a name of `edgedet_calibration.encodings.ENCODINGS`.
        fold_weights: Whether calibrated sources hold weights as integers (`edgedet_calibration.quantize`).
        precisions: What it can export.
    """

    runtime: ClassVar[str]
    encodings: ClassVar[Mapping[Precision, str]]
    fold_weights: ClassVar[bool]
    precisions: ClassVar[tuple[Precision, ...]]

    def export(self, source: Source, folder: Path) -> Exported:
        """Write the artifact, with the spec inside, into an existing folder.

        Raises:
            VendorError: The converter failed.
        """
