"""Build a TensorRT engine from an ONNX file on the machine that will run it, with TensorRT 10 or 11.

The network is strongly typed: precision is what the ONNX graph says (Q/DQ pairs for INT8, casts for FP16),
and the builder gets neither precision flags nor a calibrator, which TensorRT 11 no longer has.
Contract-tested only: the tests hold every attribute, argument name and enum against NVIDIA's Python classes,
and have built no engine.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from edgedet.errors import BundleError, MissingDeviceError, VendorError
from edgedet.files import write_atomically
from edgedet.registry import missing_extra
from edgedet.spec import DetectorSpec
from edgedet_export.metadata import embed_tensorrt


def build_engine(onnx_path: Path, engine_path: Path, spec: DetectorSpec) -> tuple[Path, Path]:
    """Build an engine for the GPU of this machine and write its plan, with the spec beside it.

    TensorFloat-32 is switched off: its 10 bits of mantissa are outside the float parity budget.

    Args:
        onnx_path: A strongly typed ONNX file with fixed shapes.
        engine_path: The plan to write; it fits this GPU model and this version of TensorRT only.
        spec: The spec of the detector in the ONNX file.

    Returns:
        The plan and the file that holds its spec.

    Raises:
        BundleError: TensorRT cannot read the ONNX file; the message has the parser's reasons.
        MissingExtraError: The tensorrt package is not installed.
        MissingDeviceError: There is no GPU, no driver, or no TensorRT library.
        VendorError: The build failed.
    """
    trt = _import_tensorrt()
    logger = trt.Logger(trt.Logger.ERROR)
    builder = _create_builder(trt, logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_path)):
        reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise BundleError(
            f"TensorRT cannot read {onnx_path}",
            got="; ".join(reasons) or "no reason given",
            expected="an ONNX file of operators that this TensorRT has",
            fix="export with `--to tensorrt`, and use TensorRT 10 or newer",
        )
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise VendorError(
            f"TensorRT could not build an engine from {onnx_path}",
            got="no plan; TensorRT has written the reason to standard error",
            expected="a serialized engine",
            fix="free memory of the GPU (`nvidia-smi` shows who uses it), then build again",
        )
    write_atomically(engine_path, bytes(plan))
    return engine_path, embed_tensorrt(engine_path, spec)


def _import_tensorrt() -> ModuleType:
    try:
        import tensorrt
    except ModuleNotFoundError as exc:
        raise missing_extra("building a TensorRT engine", exc, "tensorrt") from exc
    except ImportError as exc:
        raise _no_device(str(exc)) from exc
    module: ModuleType = tensorrt
    return module


def _create_builder(trt: ModuleType, logger: Any) -> Any:
    try:
        return trt.Builder(logger)
    except TypeError as exc:  # what the bindings raise where the library gave no builder
        raise _no_device(str(exc)) from exc


def _no_device(reason: str) -> MissingDeviceError:
    return MissingDeviceError(
        "TensorRT cannot build an engine here",
        got=reason,
        expected="TensorRT's libraries, an NVIDIA GPU and its driver",
        fix="build on the device that will run the engine; see what `nvidia-smi` says there",
    )
