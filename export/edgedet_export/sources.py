"""What artifacts are made from: the captured float graph, and graphs with quantizers."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from edgedet.boxes import Floats
from edgedet.errors import CheckpointError
from edgedet.files import sha256_of
from edgedet.models.capture import Captured, capture
from edgedet.models.checkpoint import load_checkpoint, read_info
from edgedet.spec import CALIBRATED, Precision, Provenance
from edgedet_export.batch import with_batch
from edgedet_export.target import Source, Target

if TYPE_CHECKING:
    from edgedet.models.config import DetectorConfig
    from edgedet_export.int8 import Quantization

_TOOLS = (
    "torch",
    "torchao",
    "timm",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "litert-torch",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "tensorrt-rtx-cu12-libs",
)


def captured_checkpoint(checkpoint: Path, config: DetectorConfig | None = None) -> Captured:
    """The graph of a checkpoint, with a spec that says where it came from.

    Raises:
        CheckpointError: The checkpoint cannot be loaded.
    """
    detector = load_checkpoint(checkpoint, config)
    provenance = Provenance(
        checkpoint_sha256=sha256_of(checkpoint),
        trained_on="" if config else read_info(checkpoint).data,
        tools=_tools(),
    )
    with torch.no_grad():
        return capture(detector, detector.spec().model_copy(update={"provenance": provenance}))


class Sources:
    """The sources of one export.

    Args:
        captured: The float graph.

    Attributes:
        captured: The same.
        quantization: What INT8 is made with, once it is known.
    """

    def __init__(self, captured: Captured) -> None:
        self.captured = captured
        self.quantization: Quantization | None = None
        self._float = Source(captured.graph_module, captured.example_inputs, captured.spec)
        self._floats: dict[int, Source] = {}

    def of(self, target: Target, precision: Precision) -> Source:
        """What a target makes a precision from, for one image."""
        if precision in CALIBRATED:
            assert self.quantization is not None
            return self.quantization.source(self.captured, target, precision)
        return replace(self._float, spec=self.captured.spec.model_copy(update={"precision": precision}))

    def batched(self, source: Source, batch: int) -> Source:
        """The source for so many images; targets share conversions of the float graph, and so its copies."""
        if source.graph_module is not self.captured.graph_module:
            return with_batch(source, batch)
        if batch not in self._floats:
            self._floats[batch] = with_batch(self._float, batch)
        return replace(self._floats[batch], spec=source.spec.with_batch(batch))

    def check_finite(self, tensor: Floats) -> None:
        """Refuse a checkpoint whose outputs for an image are NaN or infinite.

        Raises:
            CheckpointError: They are.
        """
        with torch.inference_mode():
            outputs = self.captured.graph_module(torch.from_numpy(tensor))
        for output, values in zip(self.captured.spec.outputs, outputs, strict=True):
            if not torch.isfinite(values).all():
                raise CheckpointError(
                    "the checkpoint cannot be exported",
                    got=f"values of {output.name} that are not finite",
                    expected="numbers, for every image",
                    fix="export an earlier checkpoint, or train again with a lower learning rate",
                )


def _tools() -> dict[str, str]:
    tools = {}
    for name in ("edgedet", *_TOOLS):
        try:
            tools[name] = version(name)
        except PackageNotFoundError:
            continue
    return tools
