"""The tables of names: what can be plugged in, where it is, and what to install for it.

Entries are strings, resolved on use, so that naming a runtime imports nothing. Adding one is a file, a line
here and a line in a test fixture.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

from edgedet.errors import MissingExtraError, UsageError


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a plug-in is and what it needs.

    Attributes:
        target: `module:attribute`.
        extra: The extra of this distribution that installs what it imports, or "".
        summary: One line for listings.
        known_as: What people may call it instead; an error then names it.
    """

    target: str
    extra: str
    summary: str
    known_as: tuple[str, ...] = ()


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
            raise self.unknown([name])
        return self._entries[name]

    def unknown(self, names: Sequence[str]) -> UsageError:
        """The error for names that are not in the table; it says which were probably meant."""
        meant = dict.fromkeys(near for name in names if (near := self._nearest(name)))
        return UsageError(
            f"there is no {self.kind} of that name",
            got=", ".join(map(repr, names)) or "an empty list",
            expected="names among " + ", ".join(self._entries),
            fix=f"did you mean {', '.join(meant)}?" if meant else f"use the listed {self.kind} names",
        )

    def _nearest(self, name: str) -> str | None:
        words = {word: key for key, entry in self._entries.items() for word in (key, *entry.known_as)}
        return next((words[word] for word in get_close_matches(name.lower(), words, n=1)), None)

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
        fix=install_command(extra) if extra else f"pip install {exc.name}",
    )


def install_command(extra: str) -> str:
    """What to type to install an extra: of the clone where edgedet was installed from one to be edited."""
    return f'pip install -e ".[{extra}]"' if _is_editable() else f'pip install "edgedet[{extra}]"'


def packages_of_extras(command: str) -> tuple[str, ...]:
    """Names of what an `install_command` installs beside edgedet; none where that is not installed here."""
    from importlib import metadata

    extras = re.findall(r"\[([\w,-]+)\]", command)
    try:
        required = metadata.requires("edgedet") or []
    except metadata.PackageNotFoundError:
        return ()
    wanted = [f'extra == "{extra}"' for one in extras for extra in one.split(",")]
    lines = (line.replace("'", '"') for line in required)
    found = (line for line in lines if any(line.endswith(condition) for condition in wanted))
    return tuple(re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in found)


@cache
def _is_editable() -> bool:
    """Whether the installation is a link to a clone, as its `direct_url.json` says (PEP 610)."""
    from importlib import metadata

    try:
        origin = metadata.distribution("edgedet").read_text("direct_url.json")
        return bool(origin) and json.loads(origin or "{}")["dir_info"]["editable"] is True
    except (metadata.PackageNotFoundError, KeyError, TypeError, ValueError):
        return False


RUNTIMES = Table(
    "runtime",
    {
        "eager": Entry(
            "edgedet_runtimes.eager:EagerRuntime", "torch", "PyTorch, the reference", ("pytorch", "torch")
        ),
        "openvino": Entry("edgedet_runtimes.ov:OpenVinoRuntime", "openvino", "OpenVINO", ("ov",)),
        "ort": Entry(
            "edgedet_runtimes.ort:OnnxRuntime",
            "onnx",
            "ONNX Runtime",
            ("onnx", "onnxruntime", "onnx-runtime"),
        ),
        "tensorrt": Entry(
            "edgedet_runtimes.trt:TensorRtRuntime", "tensorrt", "TensorRT engines", ("trt", "engine")
        ),
        "tensorrt-rtx": Entry(
            "edgedet_runtimes.rtx:TensorRtRtxRuntime",
            "tensorrt-rtx",
            "TensorRT for RTX engines",
            ("rtx", "trt-rtx"),
        ),
        "tflite": Entry(
            "edgedet_runtimes.tflite:TfliteRuntime",
            "tflite",
            "LiteRT, formerly TFLite",
            ("litert", "tf-lite"),
        ),
    },
)

TARGETS = Table(
    "target",
    {
        "onnx": Entry(
            "edgedet_export.onnx_target:OnnxTarget",
            "export",
            "ONNX, for ONNX Runtime",
            ("ort", "onnxruntime"),
        ),
        "openvino": Entry("edgedet_export.openvino_target:OpenVinoTarget", "export", "OpenVINO IR", ("ov",)),
        "tensorrt": Entry(
            "edgedet_export.tensorrt_target:TensorRtTarget",
            "export",
            "strongly typed ONNX, engine",
            ("trt", "engine"),
        ),
        "tensorrt-rtx": Entry(
            "edgedet_export.rtx_target:TensorRtRtxTarget",
            "export",
            "TensorRT for RTX engine",
            ("rtx", "trt-rtx"),
        ),
        "tflite": Entry(
            "edgedet_export.tflite_target:TfliteTarget", "export", "TFLite flatbuffer", ("litert", "tf-lite")
        ),
    },
)

DECODERS = Table(
    "decoder", {"ssd": Entry("edgedet.decode.ssd:candidates", "", "SSD: offsets against priors")}
)

OBSERVERS = Table(
    "observer",
    {
        "average": Entry(
            "edgedet_calibration.observers.average:choose", "export", "mean of the extremes of each image"
        ),
        "entropy": Entry(
            "edgedet_calibration.observers.entropy:choose", "export", "least divergence, as TensorRT's"
        ),
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
        "yolo": Entry(
            "edgedet.data.yolo:READER", "", "images with txt labels and *.yaml or classes.txt, or that yaml"
        ),
    },
)

HEADS = Table(
    "head",
    {"ssdlite": Entry("edgedet.models.ssdlite:SsdLiteHead", "torch", "SSDLite (MobileNetV2, section 6.2)")},
)

# What quantization-aware training trains.
TRAINABLE = Table(
    "precision to train in",
    {"int8": Entry("edgedet_calibration.qat:quantized_detector", "export", "rounding in the forward pass")},
)

# The fake-quantized torch modules of a bundle: what its INT8 artifacts are compared with.
REFERENCES = Table(
    "reference",
    {"int8": Entry("edgedet_calibration.reference:References", "export", "fake-quantized torch modules")},
)

TRANSPORTS = Table(
    "way to a device",
    {
        "adb": Entry("edgedet.devices.adb:TRANSPORT", "", "adb://serial (tested with a stand-in for adb)"),
        "ssh": Entry("edgedet.devices.ssh:TRANSPORT", "", "ssh://user@host[:port]"),
    },
)

# What a device can be asked to do.
JOBS = Table(
    "job",
    {
        "benchmark": Entry("edgedet.bench.on_device:benchmark", "", "measure artifacts"),
        "intermediates": Entry("edgedet.parity.on_device:intermediates", "", "read integer tensors"),
        "views": Entry("edgedet.parity.on_device:views", "", "detect in images"),
    },
)
