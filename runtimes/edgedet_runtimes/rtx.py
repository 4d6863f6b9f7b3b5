"""TensorRT for RTX on an NVIDIA GPU of the Turing, Ampere, Ada or Blackwell generation.

Contract-tested only, as `cuda_engine` is: engines were built on machines without a GPU, and none was run.
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
    import tensorrt_rtx_bindings
except ModuleNotFoundError:
    raise
except ImportError as exc:  # the Python classes are here, libtensorrt_rtx is not
    raise MissingDeviceError(
        "TensorRT for RTX cannot be used here",
        got=str(exc),
        expected="its native libraries beside its Python package",
        fix=install_command("tensorrt-rtx"),
    ) from exc

_VENDOR = Vendor(
    tensorrt_rtx_bindings,
    "TensorRT for RTX",
    "an NVIDIA RTX GPU",
    f"an engine built by TensorRT for RTX {tensorrt_rtx_bindings.__version__} for the compute capability "
    "of this GPU",
    "export again with `--to tensorrt-rtx`, for another GPU with --compute-capability; any machine can",
)


class TensorRtRtxRuntime(Runtime):
    """An engine with fixed shapes, compiled for the GPU when it is opened; `threads` has no meaning here.

    An engine runs with the version of TensorRT for RTX that built it, on the compute capabilities that it was
    built for. Its spec lies in a file beside it (`edgedet.embedded`).
    """

    name = "tensorrt-rtx"

    @staticmethod
    def version() -> str:
        """Version of the bindings, which is that of the library."""
        return str(tensorrt_rtx_bindings.__version__)

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
