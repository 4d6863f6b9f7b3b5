"""Which extra installs which package: for the message about a missing one, and for `edgedet doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgedet.registry import missing_extra

EXTRA_OF_PACKAGE = {
    "ai_edge_litert": "tflite",
    "defusedxml": "evaluate",
    "faster_coco_eval": "evaluate",
    "jinja2": "report",
    "litert_torch": "export",
    "matplotlib": "train",
    "onnx": "export",
    "onnxruntime": "onnx",
    "onnxscript": "export",
    "openvino": "openvino",
    "safetensors": "torch",
    "tensorrt": "tensorrt",
    "tensorrt_rtx_bindings": "tensorrt-rtx",
    "timm": "torch",
    "torch": "torch",
    "torchao": "export",
    "torchvision": "torch",
}


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Imports of a command that works with an extra only.

    Raises:
        MissingExtraError: A package that is imported in the block, directly or not, is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in EXTRA_OF_PACKAGE:
            raise
        raise missing_extra("this command", exc, extra) from exc
