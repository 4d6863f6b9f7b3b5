"""TensorRT for RTX: an engine that is built on any machine, without a GPU, and runs on an RTX GPU.

The graph is that of the target `tensorrt`. The builder takes INT8 convolutions; NVIDIA's support matrix lists
INT8 for weights only, so whether a GPU computes them in integers is not known before one has run them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgedet.errors import MissingError
from edgedet.spec import Precision
from edgedet_export.target import Exported, Source
from edgedet_export.trt_engine import PORTABLE, TENSORRT_RTX, build_engine, check_compute_capability
from edgedet_export.typed_onnx import write_typed


@dataclass(frozen=True, slots=True)
class TensorRtRtxTarget:
    """`model.rtx` with its sidecar, and the ONNX that it was built from.

    Attributes:
        compute_capability: The only one that engines are for; None for engines that are portable over the
            Ampere, Ada and Blackwell generations.
    """

    runtime: ClassVar[str] = "tensorrt-rtx"
    encodings: ClassVar[Mapping[Precision, str]] = {"int8": "tensorrt"}
    fold_weights: ClassVar[bool] = True
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "int8")

    compute_capability: str | None = None

    def for_compute_capability(self, name: str) -> TensorRtRtxTarget:
        """The target for GPUs of one compute capability, of `trt_engine.COMPUTE_CAPABILITIES`.

        Raises:
            UsageError: There is none of that name.
        """
        return TensorRtRtxTarget(check_compute_capability(name))

    def export(self, source: Source, folder: Path) -> Exported:
        """Write `model.rtx.onnx` and, where the builder is installed, `model.rtx` with its sidecar."""
        onnx_path, spec = folder / "model.rtx.onnx", source.spec
        write_typed(source, onnx_path)
        try:
            built = build_engine(onnx_path, folder / "model.rtx", spec, TENSORRT_RTX, self.compute_capability)
        except MissingError as missing:
            return Exported((onnx_path,), missing)
        note = (
            f"{TENSORRT_RTX.title} {built.version}, compute capability {self.compute_capability or PORTABLE}"
        )
        return Exported((*built.files, onnx_path), None, onnx_path, note, built.seconds)
