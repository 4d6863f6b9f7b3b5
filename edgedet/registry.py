"""The tables of names: what can be plugged in, where it is, and what to install for it.

Entries are strings, resolved on use, so that naming a runtime imports nothing. Adding one is a file, a line
here and a line in a test fixture.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgedet.errors import MissingExtraError, UsageError


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a plug-in is and what it needs.

    Attributes:
        target: `module:attribute`.
        extra: The extra of this distribution that installs what it imports, or "".
        summary: One line for listings.
    """

    target: str
    extra: str
    summary: str


class Table:
    """Names to entries, in alphabetical order."""

    def __init__(self, kind: str, entries: dict[str, Entry]) -> None:
        self.kind = kind
        self._entries = entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def entry(self, name: str) -> Entry:
        """The entry of that name.

        Raises:
            UsageError: There is none.
        """
        if name not in self._entries:
            raise UsageError(
                f"there is no {self.kind} of that name",
                got=repr(name),
                expected="one of " + ", ".join(self._entries),
                fix=f"use one of the listed {self.kind} names",
            )
        return self._entries[name]

    def load(self, name: str) -> Any:
        """Import what the name stands for.

        Raises:
            UsageError: There is no such name.
            MissingExtraError: A package that it imports is not installed.
        """
        entry = self.entry(name)
        module, _, attribute = entry.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as exc:
            raise missing_extra(f"{self.kind} {name!r}", exc, entry.extra) from exc


def missing_extra(what: str, exc: ModuleNotFoundError, extra: str) -> MissingExtraError:
    """The error that says what to install."""
    return MissingExtraError(
        f"{what} cannot be used here",
        got=f"no Python package {exc.name!r}",
        expected="it to be installed",
        fix=f'pip install "edgedet[{extra}]"' if extra else f"pip install {exc.name}",
    )


RUNTIMES = Table(
    "runtime",
    {
        "eager": Entry("edgedet_runtimes.eager:EagerRuntime", "torch", "PyTorch, the reference"),
        "openvino": Entry("edgedet_runtimes.ov:OpenVinoRuntime", "openvino", "OpenVINO"),
        "ort": Entry("edgedet_runtimes.ort:OnnxRuntime", "onnx", "ONNX Runtime"),
        "tensorrt": Entry("edgedet_runtimes.trt:TensorRtRuntime", "tensorrt", "TensorRT engines"),
        "tflite": Entry("edgedet_runtimes.tflite:TfliteRuntime", "tflite", "LiteRT, formerly TFLite"),
    },
)

TARGETS = Table(
    "target",
    {
        "onnx": Entry("edgedet_export.onnx_target:OnnxTarget", "export", "ONNX, for ONNX Runtime"),
        "openvino": Entry("edgedet_export.openvino_target:OpenVinoTarget", "export", "OpenVINO IR"),
        "tensorrt": Entry(
            "edgedet_export.tensorrt_target:TensorRtTarget", "export", "strongly typed ONNX, engine"
        ),
        "tflite": Entry("edgedet_export.tflite_target:TfliteTarget", "export", "TFLite flatbuffer"),
    },
)

DECODERS = Table(
    "decoder", {"ssd": Entry("edgedet.decode.ssd:candidates", "", "SSD: offsets against priors")}
)

OBSERVERS = Table(
    "observer",
    {
        "minmax": Entry("edgedet_calibration.observers.minmax:choose", "export", "all that was seen"),
        "mse": Entry("edgedet_calibration.observers.mse:choose", "export", "least squared error"),
        "percentile": Entry("edgedet_calibration.observers.percentile:choose", "export", "without the tails"),
    },
)

READERS = Table(
    "data format",
    {
        "builtin": Entry("edgedet.data.synthetic:READER", "", "the word builtin, for procedural images"),
        "coco": Entry("edgedet.data.coco:READER", "", "COCO json beside its images, or the folder of both"),
        "images": Entry("edgedet.data.folder:READER", "", "a folder of images, no boxes"),
        "voc": Entry("edgedet.data.voc:READER", "evaluate", "Annotations/*.xml, or xml beside images"),
        "yolo": Entry("edgedet.data.yolo:READER", "", "images/, labels/ and *.yaml, or that yaml"),
    },
)

HEADS = Table(
    "head",
    {"ssdlite": Entry("edgedet.models.ssdlite:SsdLiteHead", "torch", "SSDLite (MobileNetV2, section 6.2)")},
)

# The fake-quantized torch module of an encoding: what an INT8 artifact is compared with.
REFERENCES = Table(
    "reference",
    {"int8": Entry("edgedet_calibration.reference:load_reference", "export", "fake-quantized torch module")},
)
