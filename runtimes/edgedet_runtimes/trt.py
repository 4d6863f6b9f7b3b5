"""TensorRT 10 and 11 on an NVIDIA GPU.

Contract-tested only, as `cuda_engine` is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgedet.boxes import Floats
from edgedet.embedded import read_bound_spec
from edgedet.errors import MissingDeviceError
from edgedet.registry import install_command
from edgedet_runtimes.cuda_engine import CudaEngine, Vendor, require_gpu
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

_VENDOR = Vendor(
    tensorrt,
    "TensorRT",
    "an NVIDIA GPU",
    f"an engine built by TensorRT {tensorrt.__version__} on this GPU model",
    "build the engine on this machine, from the ONNX file that the bundle has for TensorRT",
)


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
    def check_device(cls) -> None:
        """Refuse a machine without an NVIDIA GPU."""
        require_gpu(_VENDOR)

    @classmethod
    def _embedded(cls, path: Path) -> str | None:
        return read_bound_spec(path)

    def _open(self) -> Signature:
        self._engine = CudaEngine(_VENDOR, self.path)
        return self._engine.signature

    def _run(self, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        return self._engine.run(feeds)

    def _close(self) -> None:
        self._engine.close()
