"""TensorRT: a strongly typed ONNX graph, and the engine where TensorRT and a GPU are.

Precision lives in the graph: float16 tensors between casts, or explicit Q/DQ, int8, zero point 0, float
biases. Contract-tested: no engine was built by the project's own tests (ARCHITECTURE.md says against what it
is held).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir

from edgedet.errors import MissingError
from edgedet.spec import Precision
from edgedet_export.metadata import embed_onnx
from edgedet_export.onnx_target import dtype_of, to_onnx
from edgedet_export.target import Exported, Source
from edgedet_export.trt_engine import build_engine


class TensorRtTarget:
    """`model.engine`, or `model.trt.onnx` alone where no engine can be built."""

    runtime: ClassVar[str] = "tensorrt"
    encodings: ClassVar[Mapping[Precision, str]] = {"int8": "tensorrt"}
    fold_weights: ClassVar[bool] = True
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "int8")

    def export(self, source: Source, folder: Path) -> Exported:
        """Write `model.trt.onnx` and, where it can be built, `model.engine` with its sidecar."""
        onnx_path = folder / "model.trt.onnx"
        ir.save(to_onnx(source, dtype_of(source)), onnx_path)
        embed_onnx(onnx_path, source.spec)
        engine_path = folder / "model.engine"
        try:
            files = build_engine(onnx_path, engine_path, source.spec)
        except MissingError as missing:
            return Exported((onnx_path,), missing)
        return Exported((*files, onnx_path))
