"""Both TensorRTs' files against NVIDIA's own Python classes: contract-tested, which is less than working.

A recorded build and a recorded inference may use only attributes, argument names, argument kinds and enum
members that the bindings have. No engine is built and no GPU is used.
"""

from __future__ import annotations

import importlib
import inspect
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tensorrt_stand_in import (
    CannotLoadError,
    ContractViolationError,
    HostCuda,
    Recording,
    load_bindings,
    load_rtx_bindings,
    overloads,
    tensorrt_module,
)

from edgedet.embedded import bound_spec, plan_sidecar, read_bound_spec
from edgedet.errors import BundleError, MissingDeviceError, VendorError
from edgedet.spec import DetectorSpec, InputSpec, OutputSpec, SsdDecoder, SsdPriors
from edgedet.vendor_log import vendor_log

STOOD_IN = ("Builder", "OnnxParser", "Runtime")
ENGINE = "edgedet_runtimes.cuda_engine"

SPEC = DetectorSpec(
    name="contract",
    input=InputSpec(size_hw=(8, 8)),
    outputs=(
        OutputSpec(name="box_offsets", shape=(1, 4, 4), role="box_offsets"),
        OutputSpec(name="class_logits", shape=(1, 4, 2), role="class_logits"),
    ),
    decoder=SsdDecoder(
        priors=SsdPriors(feature_maps_hw=((1, 1),), scales=(0.5, 0.9), aspect_ratios=((2.0,),))
    ),
    labels=("cell",),
)
TENSORS = {"images": (1, 3, 8, 8), "box_offsets": (1, 4, 4), "class_logits": (1, 4, 2)}


@dataclass(frozen=True)
class Family:
    """One of NVIDIA's two: what its files import, and what they are."""

    name: str
    package: str
    runtime: str
    suffix: str


FAMILIES = (
    Family("tensorrt", "tensorrt", "edgedet_runtimes.trt:TensorRtRuntime", ".engine"),
    Family("tensorrt-rtx", "tensorrt_rtx_bindings", "edgedet_runtimes.rtx:TensorRtRtxRuntime", ".rtx"),
)


@pytest.fixture(scope="session", params=FAMILIES, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture(scope="session")
def bindings(family: Family, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    try:
        if family.name == "tensorrt-rtx":
            return load_rtx_bindings()
        return load_bindings(tmp_path_factory.mktemp("tensorrt"))
    except CannotLoadError as exc:
        pytest.skip(str(exc))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> HostCuda:
    package = pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    simulated = HostCuda(importlib.import_module("cuda.bindings.runtime"))
    monkeypatch.setattr(package, "runtime", simulated)
    return simulated


@pytest.fixture
def recording(bindings: ModuleType, family: Family, monkeypatch: pytest.MonkeyPatch) -> Recording:
    """The family's package to import, and a record of what is used of it."""
    recording = Recording(bindings, {"Builder.build_serialized_network": b"plan"})
    monkeypatch.setitem(sys.modules, family.package, tensorrt_module(recording, STOOD_IN))
    return recording


def _weighted_sum(images: Any) -> float:
    """A sum that depends on the order of the values."""
    return float(images.ravel() @ np.arange(images.size, dtype=np.float32))


@pytest.fixture
def engine(recording: Recording, cuda: HostCuda) -> dict[str, int]:
    """Answers of an engine that sums its input up; returns the addresses that it was given."""
    addresses: dict[str, int] = {}
    trt = recording.bindings

    def execute(stream: int) -> bool:
        images, *outputs = (np.frombuffer(cuda.alive[addresses[name]], np.float32) for name in TENSORS)
        for index, output in enumerate(outputs):
            output[:] = _weighted_sum(images) + index + np.arange(output.size)
        return stream in cuda.alive

    def remember(name: str, address: int) -> bool:
        addresses[name] = address
        return True

    modes = trt.TensorIOMode
    recording.answers |= {
        "ICudaEngine.num_io_tensors": len(TENSORS),
        "ICudaEngine.get_tensor_name": lambda index: list(TENSORS)[index],
        "ICudaEngine.get_tensor_shape": lambda name: trt.Dims(TENSORS[name]),
        "ICudaEngine.get_tensor_dtype": trt.DataType.FLOAT,
        "ICudaEngine.get_tensor_mode": lambda name: modes.INPUT if name == "images" else modes.OUTPUT,
        "IExecutionContext.set_tensor_address": remember,
        "IExecutionContext.execute_async_v3": execute,
    }
    return addresses


@pytest.fixture
def plan(tmp_path: Path, family: Family) -> Path:
    path = tmp_path / f"model{family.suffix}"
    path.write_bytes(b"plan")
    plan_sidecar(path).write_text(bound_spec(path, SPEC.to_json()))
    return path


@pytest.fixture
def runtime_class(recording: Recording, cuda: HostCuda, family: Family) -> Iterator[Any]:
    """The runtime, imported afresh against the stand-ins and forgotten afterwards."""
    module, _, name = family.runtime.partition(":")
    for one in (module, ENGINE):
        sys.modules.pop(one, None)
    try:
        yield getattr(importlib.import_module(module), name)
    finally:
        for one in (module, ENGINE):
            sys.modules.pop(one, None)


def _build(tmp_path: Path, family: Family, compute_capability: str | None = None) -> tuple[Path, ...]:
    pytest.importorskip("onnx", reason="the export extra is not installed")
    from edgedet_export import trt_engine

    vendor = {"tensorrt": trt_engine.TENSORRT, "tensorrt-rtx": trt_engine.TENSORRT_RTX}[family.name]
    path = tmp_path / f"model{family.suffix}"
    return trt_engine.build_engine(tmp_path / "model.onnx", path, SPEC, vendor, compute_capability).files


def test_a_build_uses_only_what_the_bindings_have(
    recording: Recording, tmp_path: Path, family: Family
) -> None:
    engine, sidecar = _build(tmp_path, family)
    assert engine.read_bytes() == b"plan"
    assert sidecar == plan_sidecar(engine)
    assert DetectorSpec.from_json(read_bound_spec(engine) or "", source="sidecar") == SPEC
    trt = recording.bindings
    assert recording.names() == [
        "Builder",
        "Builder.create_network",
        "OnnxParser",
        "OnnxParser.parse_from_file",
        "Builder.create_builder_config",
        "IBuilderConfig.clear_flag",
        "Builder.build_serialized_network",
    ]
    calls = dict(recording.calls)
    assert calls["Builder.create_network"] == (1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED),)
    assert calls["IBuilderConfig.clear_flag"] == (trt.BuilderFlag.TF32,)


def test_a_build_for_one_compute_capability_names_that_one(
    recording: Recording, tmp_path: Path, family: Family
) -> None:
    if family.name == "tensorrt":
        pytest.skip("TensorRT builds for the GPU that it finds")
    _build(tmp_path, family, "8.6")
    calls = dict(recording.calls)
    assert calls["IBuilderConfig.num_compute_capabilities"] == (1,)
    assert calls["IBuilderConfig.set_compute_capability"] == (recording.bindings.ComputeCapability.SM86, 0)


def test_what_the_onnx_parser_objects_to_is_passed_on(
    recording: Recording, tmp_path: Path, family: Family
) -> None:
    recording.answers |= {
        "OnnxParser.parse_from_file": False,
        "OnnxParser.num_errors": 2,
        "OnnxParser.supports_operator": False,
        "ParserError.code": recording.bindings.ErrorCode.UNSUPPORTED_NODE,
        "ParserError.desc": "no such operator",
        "ParserError.func": "checkDet",
        "ParserError.node_operator": "Det",
    }
    said = r"no such operator \(UNSUPPORTED_NODE in checkDet, node Det\)"
    with pytest.raises(BundleError, match=f"{said}; {said}"):
        _build(tmp_path, family)


def test_a_build_without_a_plan_leaves_nothing_behind(
    recording: Recording, tmp_path: Path, family: Family
) -> None:
    def refuse(*_: Any) -> None:
        ((_, (logger,)),) = [call for call in recording.calls if call[0] == "Builder"]
        logger.log(recording.bindings.ILogger.WARNING, "chatter")
        logger.log(recording.bindings.ILogger.ERROR, "no runners")

    recording.answers["Builder.build_serialized_network"] = refuse
    with pytest.raises(VendorError, match=r"could not build .* no plan: no runners;"):
        _build(tmp_path, family)
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_a_gpu_cannot_build(
    bindings: ModuleType, family: Family, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if family.name == "tensorrt-rtx":
        pytest.skip("TensorRT for RTX needs none: tests/export/test_rtx_target.py builds with it")
    monkeypatch.setitem(sys.modules, "tensorrt", bindings)  # whose libraries here give no builder
    with pytest.raises(MissingDeviceError, match="nvidia-smi"):
        _build(tmp_path, family)


def test_an_inference_uses_only_what_the_bindings_have(
    recording: Recording, engine: dict[str, int], cuda: HostCuda, runtime_class: Any, plan: Path
) -> None:
    images = np.random.default_rng(0).standard_normal(TENSORS["images"]).astype(np.float32)
    scattered = np.asfortranarray(2 * images)  # its address alone does not give the values in order
    with runtime_class(plan) as runtime:
        assert (runtime.spec, runtime.version()) == (SPEC, recording.bindings.__version__)
        first, second = runtime.run({"images": images}), runtime.run({"images": scattered})
        assert len(cuda.alive) == len(TENSORS) + 1
    assert cuda.alive == {}, "memory or a stream was not freed"
    for outputs, total in ((first, _weighted_sum(images)), (second, _weighted_sum(2 * images))):
        for index, name in enumerate(("box_offsets", "class_logits")):
            wanted = total + index + np.arange(math.prod(TENSORS[name])).reshape(TENSORS[name])
            np.testing.assert_allclose(outputs[name], wanted, rtol=1e-4, atol=1e-4)
    assert {"IExecutionContext.set_tensor_address", "IExecutionContext.execute_async_v3"} <= set(
        recording.names()
    )


def test_a_plan_that_does_not_load_is_refused_with_the_logged_reason(
    recording: Recording, engine: dict[str, int], cuda: HostCuda, runtime_class: Any, plan: Path
) -> None:
    def refuse(data: bytes) -> None:
        ((_, (logger,)),) = [call for call in recording.calls if call[0] == "Runtime"]
        logger.log(recording.bindings.ILogger.WARNING, "chatter")
        logger.log(recording.bindings.ILogger.ERROR, "built by version 9")

    recording.answers["Runtime.deserialize_cuda_engine"] = refuse
    with pytest.raises(BundleError, match="built by version 9") as caught:
        runtime_class(plan)
    assert "chatter" not in str(caught.value)
    assert cuda.alive == {}


def test_an_engine_with_other_tensors_than_the_spec_is_refused_and_freed(
    recording: Recording, engine: dict[str, int], cuda: HostCuda, runtime_class: Any, plan: Path
) -> None:
    recording.answers["ICudaEngine.get_tensor_dtype"] = recording.bindings.DataType.HALF
    with pytest.raises(BundleError, match="float16"):
        runtime_class(plan)
    assert cuda.alive == {}


def test_memory_that_runs_out_is_an_error_of_ours_and_nothing_leaks(
    engine: dict[str, int], cuda: HostCuda, runtime_class: Any, plan: Path
) -> None:
    cuda.failing = {"cudaMalloc"}
    with pytest.raises(VendorError, match="cudaErrorMemoryAllocation"):
        runtime_class(plan)
    assert cuda.alive == {}


def test_an_inference_that_fails_is_a_vendor_error(
    recording: Recording, engine: dict[str, int], runtime_class: Any, plan: Path
) -> None:
    recording.answers["IExecutionContext.execute_async_v3"] = False
    with runtime_class(plan) as runtime, pytest.raises(VendorError, match="execute_async_v3"):
        runtime.run({"images": np.zeros(TENSORS["images"], np.float32)})


def test_a_machine_without_a_gpu_is_told_what_is_missing(
    engine: dict[str, int], cuda: HostCuda, runtime_class: Any, plan: Path
) -> None:
    cuda.failing = {"cudaGetDeviceCount"}
    with pytest.raises(MissingDeviceError, match="nvidia-smi"):
        runtime_class(plan)


def test_a_plan_in_the_place_of_another_is_refused(runtime_class: Any, plan: Path) -> None:
    plan.write_bytes(b"another plan")
    with pytest.raises(BundleError, match="is not the spec of"):
        runtime_class(plan)


def test_a_plan_without_its_spec_beside_it_is_refused(runtime_class: Any, plan: Path) -> None:
    plan_sidecar(plan).unlink()
    with pytest.raises(BundleError, match="without a detector spec"):
        runtime_class(plan)


def test_the_log_can_be_called_as_tensorrt_calls_it(bindings: ModuleType) -> None:
    ((signature),) = overloads(bindings.ILogger.log)
    log = vendor_log(bindings)
    assert list(inspect.signature(log.log).parameters) == list(signature.parameters)


def test_the_builder_and_the_runtime_of_a_process_have_one_log(bindings: ModuleType) -> None:
    assert vendor_log(bindings) is vendor_log(bindings)
    root = Path(__file__).resolve().parents[2]
    sources = [root / "export" / "edgedet_export", root / "runtimes" / "edgedet_runtimes"]
    loggers = [
        path for folder in sources for path in folder.glob("*.py") if "ILogger" in path.read_text("utf-8")
    ]
    assert loggers == []


def _builder(trt: Any) -> Any:
    return trt.Builder(trt.Logger(trt.Logger.ERROR))


def _config(trt: Any) -> Any:
    return _builder(trt).create_builder_config()


def _network(trt: Any) -> Any:
    return _builder(trt).create_network(1)


def _engine(trt: Any) -> Any:
    return trt.Runtime(trt.Logger()).deserialize_cuda_engine(b"plan")


@pytest.mark.parametrize(
    "misuse",
    [
        pytest.param(lambda trt: _builder(trt).max_workspace_size, id="attribute of TensorRT 7"),
        pytest.param(
            lambda trt: setattr(_config(trt), "max_workspace_size", 1), id="attribute of TensorRT 8"
        ),
        pytest.param(lambda trt: setattr(_config(trt), "int8_calibrator", None), id="calibrator"),
        pytest.param(lambda trt: _config(trt).set_flag(trt.BuilderFlag.INT8), id="INT8 flag"),
        pytest.param(lambda trt: _config(trt).set_flag(trt.BuilderFlag.FP16), id="FP16 flag"),
        pytest.param(lambda trt: _config(trt).set_flag(1), id="number for an enum"),
        pytest.param(lambda trt: _config(trt).set_flag(trt.MemoryPoolType.WORKSPACE), id="another enum"),
        pytest.param(lambda trt: trt.IInt8EntropyCalibrator2, id="calibrator class"),
        pytest.param(lambda trt: trt.Builder(), id="missing argument"),
        pytest.param(lambda trt: trt.Builder(None), id="None for a logger"),
        pytest.param(lambda trt: trt.OnnxParser(_config(trt), trt.Logger()), id="config for a network"),
        pytest.param(lambda trt: _builder(trt).build_engine(_network(trt), _config(trt)), id="method of old"),
        pytest.param(lambda trt: _builder(trt).create_network(1, 2), id="argument too many"),
        pytest.param(lambda trt: _builder(trt).create_network(flag=1), id="wrong argument name"),
        pytest.param(lambda trt: _builder(trt).create_network(1, flags=1), id="argument given twice"),
        pytest.param(lambda trt: _engine(trt).get_binding_name(0), id="bindings by index"),
        pytest.param(
            lambda trt: _engine(trt).create_execution_context().execute_async_v2([], 0), id="execute_v2"
        ),
        pytest.param(
            lambda trt: _engine(trt).create_execution_context().set_tensor_address("images", "0x10"),
            id="text for an address",
        ),
    ],
)
def test_the_guard_sees_what_the_bindings_do_not_have(
    recording: Recording, family: Family, misuse: Any
) -> None:
    with pytest.raises((ContractViolationError, AttributeError)):
        misuse(sys.modules[family.package])


@pytest.mark.parametrize(
    "misuse",
    [
        pytest.param(lambda cudart: cudart.cudaMallocEverything, id="no such call"),
        pytest.param(lambda cudart: cudart.cudaMemcpyAsync(1, 2, 3), id="arguments missing"),
        pytest.param(lambda cudart: cudart.cudaMalloc(bytes=3), id="wrong argument name"),
    ],
)
def test_the_guard_sees_what_the_cuda_bindings_do_not_have(cuda: HostCuda, misuse: Any) -> None:
    with pytest.raises((ContractViolationError, TypeError)):
        misuse(cuda)
