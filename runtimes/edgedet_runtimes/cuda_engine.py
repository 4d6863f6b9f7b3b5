"""An engine on an NVIDIA GPU: what the runtimes of TensorRT and of TensorRT for RTX share.

Both have the same Python classes in packages of their own. Memory goes through NVIDIA's own CUDA bindings.
Contract-tested only: the tests hold every attribute, argument name and enum that this file uses against
NVIDIA's Python classes, and have run no engine.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart

from edgedet.boxes import Floats
from edgedet.errors import BundleError, MissingDeviceError, VendorError
from edgedet.spec import TensorSpec
from edgedet.vendor_log import vendor_log
from edgedet_runtimes.shell import Signature

_TO_DEVICE = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
_TO_HOST = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost


@dataclass(frozen=True, slots=True)
class Vendor:
    """One of NVIDIA's two runtimes.

    Attributes:
        trt: Its Python package.
        title: What messages call it.
        gpu: The GPU that it needs, with its article.
        engine: What `expected` says of an engine that it loads.
        rebuild: How to get such an engine.
    """

    trt: ModuleType
    title: str
    gpu: str
    engine: str
    rebuild: str


@dataclass(frozen=True, slots=True)
class _DeviceTensor:
    """Where a tensor lies on the GPU."""

    address: int
    nbytes: int


class CudaEngine:
    """A serialized engine with fixed shapes, opened.

    Args:
        vendor: Whose engine it is.
        path: The plan.

    Attributes:
        signature: Its inputs and outputs.

    Raises:
        MissingDeviceError: There is no GPU, or no driver for it.
        BundleError: The plan does not load here.
    """

    def __init__(self, vendor: Vendor, path: Path) -> None:
        require_gpu(vendor)
        self._vendor, self._path, trt = vendor, path, vendor.trt
        self._turn = threading.Lock()  # one context and one set of tensors: threads take turns
        self._log = vendor_log(trt)
        self._log.clear()
        # Runtime, engine and context are kept, because none may outlive the one that it came from.
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise self._unusable(f"a plan that {vendor.title} does not load")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise self._unusable("an engine that does not fit into the GPU's memory")
        self.signature = inputs, outputs = _signature(trt, self._engine)
        with ExitStack() as resources:
            self._stream = _checked(cudart.cudaStreamCreate())
            resources.callback(cudart.cudaStreamDestroy, self._stream)
            self._tensors = {spec.name: _allocate(spec, resources) for spec in inputs + outputs}
            for name, tensor in self._tensors.items():
                if not self._context.set_tensor_address(name, tensor.address):
                    raise self._unusable(f"an engine that takes no address for {name}")
            self._resources = resources.pop_all()

    def run(self, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        """One inference on C-contiguous feeds of the signature; the caller owns what is returned."""
        with self._turn:
            return self._one_after_another(feeds)

    def _one_after_another(self, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        for name, feed in feeds.items():
            tensor = self._tensors[name]
            self._copy(tensor.address, feed.ctypes.data, tensor.nbytes, _TO_DEVICE)
        if not self._context.execute_async_v3(int(self._stream)):
            raise RuntimeError(f"execute_async_v3 failed: {self._log}")
        _, specs = self.signature
        outputs = {spec.name: np.empty(spec.shape, spec.dtype) for spec in specs}
        for name, array in outputs.items():
            self._copy(array.ctypes.data, self._tensors[name].address, array.nbytes, _TO_HOST)
        _checked(cudart.cudaStreamSynchronize(self._stream))
        return outputs

    def close(self) -> None:
        """Free the engine and its memory on the GPU."""
        del self._context, self._engine, self._runtime
        self._resources.close()

    def _copy(self, target: int, source: int, nbytes: int, kind: Any) -> None:
        _checked(cudart.cudaMemcpyAsync(target, source, nbytes, kind, self._stream))

    def _unusable(self, got: str) -> BundleError:
        return BundleError(
            f"{self._vendor.title} cannot open {self._path}",
            got=f"{got}: {self._log}",
            expected=self._vendor.engine,
            fix=self._vendor.rebuild,
        )


def require_gpu(vendor: Vendor) -> None:
    """Refuse to go on without a GPU and a driver.

    Raises:
        MissingDeviceError: One of them is not there.
    """
    error, count = cudart.cudaGetDeviceCount()
    if error != cudart.cudaError_t.cudaSuccess or not count:
        raise MissingDeviceError(
            f"{vendor.title} needs {vendor.gpu}",
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


def _signature(trt: ModuleType, engine: Any) -> Signature:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    is_input = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
    inputs = tuple(_spec(trt, engine, name) for name in names if is_input[name])
    return inputs, tuple(_spec(trt, engine, name) for name in names if not is_input[name])


def _spec(trt: ModuleType, engine: Any, name: str) -> TensorSpec:
    dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
    shape = tuple(engine.get_tensor_shape(name))
    return TensorSpec.model_validate({"name": name, "shape": shape, "dtype": dtype.name})
