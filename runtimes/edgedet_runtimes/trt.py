"""TensorRT 10 and 11 on an NVIDIA GPU, its memory through NVIDIA's own CUDA bindings.

Contract-tested only: the tests hold every attribute, argument name and enum that this file uses against
NVIDIA's Python classes, and have run no engine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart

from edgedet.boxes import Floats
from edgedet.embedded import plan_sidecar
from edgedet.errors import BundleError, MissingDeviceError, VendorError
from edgedet.registry import install_command
from edgedet.spec import TensorSpec
from edgedet_runtimes.shell import Runtime, Signature

try:
    import tensorrt
except ModuleNotFoundError:
    raise
except ImportError as exc:  # the Python classes are here, libnvinfer is not
    raise MissingDeviceError(
        "TensorRT cannot be used here",
        got=str(exc),
        expected="its native libraries beside its Python package",
        fix=f"{install_command('tensorrt')}, or put the folder of libnvinfer on LD_LIBRARY_PATH",
    ) from exc


_TO_DEVICE = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
_TO_HOST = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost


class _ErrorLog(tensorrt.ILogger):  # type: ignore[misc]
    """Keeps what TensorRT says of a failure, which it does not put into exceptions, off the terminal."""

    def __init__(self) -> None:
        tensorrt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: Any, msg: str) -> None:
        """Called by TensorRT; keeps errors and drops the rest."""
        if severity in (tensorrt.ILogger.INTERNAL_ERROR, tensorrt.ILogger.ERROR):
            self.errors.append(msg)

    def __str__(self) -> str:
        return "; ".join(self.errors) or "no reason given"


@dataclass(frozen=True, slots=True)
class _DeviceTensor:
    """Where a tensor lies on the GPU."""

    address: int
    nbytes: int


class TensorRtRuntime(Runtime):
    """A serialized engine with fixed shapes; `threads` has no meaning here.

    An engine runs on the GPU model and the TensorRT version that it was built with. Its spec lies in a file
    beside it (`edgedet.embedded`).
    """

    name = "tensorrt"

    @staticmethod
    def version() -> str:
        """Version of the tensorrt package."""
        return str(tensorrt.__version__)

    @classmethod
    def _embedded(cls, path: Path) -> str | None:
        sidecar = plan_sidecar(path)
        return sidecar.read_text("utf-8") if sidecar.is_file() else None

    def _open(self) -> Signature:
        _require_gpu()
        self._log = _ErrorLog()
        # Runtime, engine and context are kept, because none may outlive the one that it came from.
        self._runtime = tensorrt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(self.path.read_bytes())
        if self._engine is None:
            raise self._unusable("a plan that TensorRT does not load")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise self._unusable("an engine that does not fit into the GPU's memory")
        inputs, outputs = _signature(self._engine)
        with ExitStack() as resources:
            self._stream = _checked(cudart.cudaStreamCreate())
            resources.callback(cudart.cudaStreamDestroy, self._stream)
            self._tensors = {spec.name: _allocate(spec, resources) for spec in inputs + outputs}
            for name, tensor in self._tensors.items():
                if not self._context.set_tensor_address(name, tensor.address):
                    raise self._unusable(f"an engine that takes no address for {name}")
            self._resources = resources.pop_all()
        return inputs, outputs

    def _run(self, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        for name, feed in feeds.items():
            tensor = self._tensors[name]
            self._copy(tensor.address, feed.ctypes.data, tensor.nbytes, _TO_DEVICE)
        if not self._context.execute_async_v3(int(self._stream)):
            raise RuntimeError(f"execute_async_v3 failed: {self._log}")
        outputs = {spec.name: np.empty(spec.shape, spec.dtype) for spec in self.outputs}
        for name, array in outputs.items():
            self._copy(array.ctypes.data, self._tensors[name].address, array.nbytes, _TO_HOST)
        _checked(cudart.cudaStreamSynchronize(self._stream))
        return outputs

    def _copy(self, target: int, source: int, nbytes: int, kind: Any) -> None:
        _checked(cudart.cudaMemcpyAsync(target, source, nbytes, kind, self._stream))

    def _close(self) -> None:
        del self._context, self._engine, self._runtime
        self._resources.close()

    def _unusable(self, got: str) -> BundleError:
        return BundleError(
            f"tensorrt cannot open {self.path}",
            got=f"{got}: {self._log}",
            expected=f"an engine built by TensorRT {self.version()} on this GPU model",
            fix="build the engine on this machine, from the ONNX file that the bundle has for TensorRT",
        )


def _require_gpu() -> None:
    error, count = cudart.cudaGetDeviceCount()
    if error != cudart.cudaError_t.cudaSuccess or not count:
        raise MissingDeviceError(
            "TensorRT needs an NVIDIA GPU",
            got=_explain(error) if error != cudart.cudaError_t.cudaSuccess else "a driver that sees no GPU",
            expected="a GPU and a driver for the CUDA version of the cuda-bindings package",
            fix="see what `nvidia-smi` says; install or update the driver, or use another runtime",
        )


def _checked(result: tuple[Any, ...]) -> Any:
    """The value of a CUDA call, which returns its error code in front of it."""
    error, *values = result
    if error != cudart.cudaError_t.cudaSuccess:
        raise VendorError(
            "a CUDA call failed",
            got=_explain(error),
            expected="cudaSuccess",
            fix="see whether other programs use up the GPU's memory (`nvidia-smi`)",
        )
    return values[0] if values else None


def _explain(error: Any) -> str:
    _, text = cudart.cudaGetErrorString(error)
    return f"{error.name}: {text.decode()}"


def _allocate(spec: TensorSpec, resources: ExitStack) -> _DeviceTensor:
    nbytes = math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
    address = _checked(cudart.cudaMalloc(nbytes))
    resources.callback(cudart.cudaFree, address)
    return _DeviceTensor(int(address), nbytes)


def _signature(engine: Any) -> Signature:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    is_input = {name: engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT for name in names}
    inputs = tuple(_spec(engine, name) for name in names if is_input[name])
    return inputs, tuple(_spec(engine, name) for name in names if not is_input[name])


def _spec(engine: Any, name: str) -> TensorSpec:
    dtype = np.dtype(tensorrt.nptype(engine.get_tensor_dtype(name)))
    shape = tuple(engine.get_tensor_shape(name))
    return TensorSpec.model_validate({"name": name, "shape": shape, "dtype": dtype.name})
