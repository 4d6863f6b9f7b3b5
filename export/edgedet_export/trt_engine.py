"""Build an engine from an ONNX file, with TensorRT 10 or 11 or with TensorRT for RTX.

The two have the same Python classes in packages of their own. TensorRT builds on the machine that will run
the engine; TensorRT for RTX needs no GPU and no driver. The network is strongly typed: precision is what the
ONNX graph says (Q/DQ pairs for INT8, casts for FP16), and the builder gets neither precision flags nor a
calibrator, which TensorRT 11 no longer has. TensorRT's builder is contract-tested only: the tests hold every
attribute, argument name and enum against NVIDIA's Python classes, and have built no engine with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from edgedet.errors import BundleError, MissingDeviceError, UsageError, VendorError
from edgedet.files import write_atomically
from edgedet.registry import missing_extra
from edgedet.spec import DetectorSpec
from edgedet.vendor_log import vendor_log
from edgedet_export.metadata import embed_tensorrt

# GPUs that TensorRT for RTX compiles for, by compute capability; without one of them an engine is portable.
COMPUTE_CAPABILITIES = {
    "7.5": "SM75",
    "8.0": "SM80",
    "8.6": "SM86",
    "8.9": "SM89",
    "12.0": "SM120",
    "12.1": "SM121",
}
PORTABLE = "8.0, 8.6, 8.9, 12.0 and later"


@dataclass(frozen=True, slots=True)
class EngineBuilder:
    """One of NVIDIA's two builders.

    Attributes:
        title: What messages call it.
        load: Imports its package.
        extra: The extra that installs it; targets have the same name.
        fix: What to do where it fails on a graph that it can read.
    """

    title: str
    load: Callable[[], ModuleType]
    extra: str
    fix: str


def _tensorrt() -> ModuleType:
    import tensorrt

    module: ModuleType = tensorrt
    return module


def _tensorrt_rtx() -> ModuleType:
    import tensorrt_rtx_bindings

    module: ModuleType = tensorrt_rtx_bindings
    return module


TENSORRT = EngineBuilder(
    "TensorRT",
    _tensorrt,
    "tensorrt",
    "free memory of the GPU (`nvidia-smi` shows who uses it), then build again",
)
TENSORRT_RTX = EngineBuilder(
    "TensorRT for RTX",
    _tensorrt_rtx,
    "tensorrt-rtx",
    "leave this target out with --to, and report it with the versions that `edgedet doctor` prints",
)


@dataclass(frozen=True, slots=True)
class Built:
    """An engine that was built.

    Attributes:
        files: The plan and the file that holds its spec.
        seconds: What the builder took.
        version: The vendor's.
    """

    files: tuple[Path, Path]
    seconds: float
    version: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """What the parser made of an ONNX file.

    Attributes:
        trt: The vendor's package.
        builder: Made the network.
        network: Filled where there are no reasons.
        log: Has what the vendor said.
        reasons: Why the parser refuses the file, in its words.
        lacking: Operators of the file that it does not have.
    """

    trt: ModuleType
    builder: Any
    network: Any
    log: Any
    reasons: tuple[str, ...]
    lacking: tuple[str, ...]


def parse(onnx_path: Path, vendor: EngineBuilder) -> Parsed:
    """Read an ONNX file into a strongly typed network.

    Raises:
        MissingExtraError: The vendor's package is not installed.
        MissingDeviceError: There is no GPU, no driver, or no library, where the vendor needs it.
    """
    trt = _import(vendor)
    log = vendor_log(trt)
    log.clear()
    builder = _create_builder(trt, log, vendor)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if parser.parse_from_file(str(onnx_path)):
        return Parsed(trt, builder, network, log, (), ())
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    reasons = tuple(map(_reason, errors)) or ("no reason given",)
    operators = dict.fromkeys(error.node_operator() for error in errors)
    lacking = tuple(name for name in operators if name and not parser.supports_operator(name))
    return Parsed(trt, builder, network, log, reasons, lacking)


def build_engine(
    onnx_path: Path,
    engine_path: Path,
    spec: DetectorSpec,
    vendor: EngineBuilder = TENSORRT,
    compute_capability: str | None = None,
) -> Built:
    """Build an engine and write its plan, with the spec beside it.

    TensorFloat-32 is switched off: its 10 bits of mantissa are outside the float parity budget.

    Args:
        onnx_path: A strongly typed ONNX file with fixed shapes.
        engine_path: The plan to write. TensorRT's fits this GPU model and this version only, that of TensorRT
            for RTX this version on every GPU that it was built for.
        spec: The spec of the detector in the ONNX file.
        vendor: Who builds.
        compute_capability: The one that TensorRT for RTX builds for, of `COMPUTE_CAPABILITIES`; None for
            a portable engine, and with TensorRT.

    Raises:
        BundleError: The vendor cannot read the ONNX file; the message has the parser's reasons.
        MissingExtraError: The vendor's package is not installed.
        MissingDeviceError: There is no GPU, no driver, or no library, where the vendor needs it.
        VendorError: The build failed; the message has the builder's reasons.
    """
    parsed = parse(onnx_path, vendor)
    if parsed.reasons:
        raise BundleError(
            f"{vendor.title} cannot read {onnx_path}",
            got="; ".join(parsed.reasons),
            expected=f"an ONNX file of operators that this {vendor.title} has",
            fix=f"export with `--to {vendor.extra}`, and use its newest version",
        )
    trt, began = parsed.trt, time.perf_counter()
    config = parsed.builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    if compute_capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(
            getattr(trt.ComputeCapability, COMPUTE_CAPABILITIES[compute_capability]), 0
        )
    plan = parsed.builder.build_serialized_network(parsed.network, config)
    if plan is None:
        raise VendorError(
            f"{vendor.title} could not build an engine from {onnx_path}",
            got=f"no plan: {parsed.log}",
            expected="a serialized engine",
            fix=vendor.fix,
        )
    write_atomically(engine_path, bytes(plan))
    files = (engine_path, embed_tensorrt(engine_path, spec))
    return Built(files, time.perf_counter() - began, str(trt.__version__))


def check_compute_capability(name: str) -> str:
    """The compute capability of that name.

    Raises:
        UsageError: TensorRT for RTX compiles for none of that name.
    """
    if name not in COMPUTE_CAPABILITIES:
        raise UsageError(
            "TensorRT for RTX does not build for that compute capability",
            got=repr(name),
            expected="one of " + ", ".join(COMPUTE_CAPABILITIES),
            fix=f"use one of those, or leave it out for an engine that runs on {PORTABLE}",
        )
    return name


def _import(vendor: EngineBuilder) -> ModuleType:
    try:
        return vendor.load()
    except ModuleNotFoundError as exc:
        raise missing_extra(f"building a {vendor.title} engine", exc, vendor.extra) from exc
    except ImportError as exc:
        raise _no_device(vendor, str(exc)) from exc


def _create_builder(trt: ModuleType, log: Any, vendor: EngineBuilder) -> Any:
    try:
        return trt.Builder(log)
    except TypeError as exc:  # what the bindings raise where the library gave no builder
        raise _no_device(vendor, str(exc)) from exc


def _no_device(vendor: EngineBuilder, reason: str) -> MissingDeviceError:
    return MissingDeviceError(
        f"{vendor.title} cannot build an engine here",
        got=reason,
        expected="its libraries, and for TensorRT an NVIDIA GPU and its driver",
        fix="build on the device that will run the engine; see what `nvidia-smi` says there",
    )


def _reason(error: Any) -> str:
    """A parser's error; of an operator that it lacks it says "false", and where that was found."""
    return f"{error.desc()} ({error.code().name} in {error.func()}, node {error.node_operator()})"
