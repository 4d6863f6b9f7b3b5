"""TensorRT: a strongly typed ONNX graph, and the engine where TensorRT and a GPU are.

Precision lives in the graph: float16 tensors between casts, or explicit Q/DQ, int8, zero point 0, float
biases. NVIDIA's own parser judges it. The engine is contract-tested: the project's own tests built none
(ARCHITECTURE.md says against what the builder is held).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from edgedet.errors import MissingError
from edgedet.spec import Precision
from edgedet_export.target import Exported, Source
from edgedet_export.trt_engine import build_engine
from edgedet_export.typed_onnx import write_typed


class TensorRtTarget:
    """`model.engine`, or `model.trt.onnx` alone where no engine can be built."""

    runtime: ClassVar[str] = "tensorrt"
    encodings: ClassVar[Mapping[Precision, str]] = {"int8": "tensorrt"}
    fold_weights: ClassVar[bool] = True
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "int8")

    def export(self, source: Source, folder: Path) -> Exported:
        """Write `model.trt.onnx` and, where it can be built, `model.engine` with its sidecar."""
        onnx_path = folder / "model.trt.onnx"
        judged = write_typed(source, onnx_path)
        try:
            built = build_engine(onnx_path, folder / "model.engine", source.spec)
        except MissingError as missing:
            return Exported((onnx_path,), missing, note=judged)
        note = f"{judged}; TensorRT {built.version}"
        return Exported((*built.files, onnx_path), None, onnx_path, note, built.seconds)
