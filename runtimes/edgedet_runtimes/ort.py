"""ONNX Runtime on the CPU."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnxruntime

from edgedet.boxes import Floats
from edgedet.embedded import SPEC_KEY
from edgedet.errors import BundleError
from edgedet.executed import ExecutedGraph
from edgedet.intermediate import Intermediate, Intermediates
from edgedet.saturation import IntegerLayer
from edgedet.spec import TensorSpec
from edgedet_runtimes.ort_external_data import has_external_data
from edgedet_runtimes.ort_graph import executed_graph
from edgedet_runtimes.ort_integer_layers import integer_layers
from edgedet_runtimes.ort_intermediates import with_integer_outputs
from edgedet_runtimes.shell import Runtime, Signature

# Everything below fatal also arrives as an exception.
_LOG_FATAL = 4

_PROVIDERS = ["CPUExecutionProvider"]

# Rounds float biases to int32, in steps that may be too small: what TensorRT adds as floats overflows.
_REFUSED_OPTIMIZERS = "WeightBiasQuantization"

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}


class OnnxRuntime(Runtime):
    """An .onnx file; feeds are read in place and outputs are freshly allocated by the vendor."""

    name = "ort"

    @staticmethod
    def version() -> str:
        """Version of the onnxruntime package."""
        return str(onnxruntime.__version__)

    @classmethod
    def _embedded(cls, path: Path) -> str | None:
        options = _options(threads=1)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        properties: dict[str, str] = _session(path, options).get_modelmeta().custom_metadata_map
        return properties.get(SPEC_KEY)

    @classmethod
    def _integer_layers(cls, path: Path) -> tuple[IntegerLayer, ...]:
        return integer_layers(path.read_bytes())

    def _open(self) -> Signature:
        self._session = _session(self.path, _options(self.threads))
        self._output_names = [node.name for node in self._session.get_outputs()]
        return _specs(self._session.get_inputs()), _specs(self._session.get_outputs())

    def _run(self, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        arrays = self._session.run(self._output_names, feeds)
        return dict(zip(self._output_names, arrays, strict=True))

    def _executed(self, feeds: Mapping[str, Floats], runs: int) -> ExecutedGraph:
        with tempfile.TemporaryDirectory(prefix="edgedet-") as folder:
            optimized = Path(folder) / "optimized.onnx"
            options = _options(self.threads)
            options.optimized_model_filepath = str(optimized)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = _session(self.path, options)
            for _ in range(runs):
                session.run(self._output_names, feeds)
            return executed_graph(self.name, optimized, Path(session.end_profiling()))

    def _intermediates(self, feeds: Mapping[str, Floats]) -> Intermediates:
        model, quantized = with_integer_outputs(self.path.read_bytes())
        session = onnxruntime.InferenceSession(model, _options(self.threads), providers=_PROVIDERS)
        names = [*self._output_names, *(one.tensor for one in quantized)]
        found = dict(zip(names, session.run(names, feeds), strict=True))
        tensors = (Intermediate(found[one.tensor], one.scale, one.zero_point) for one in quantized)
        return Intermediates(tuple(tensors), {name: found[name] for name in self._output_names})

    def _close(self) -> None:
        del self._session


def _options(threads: int | None) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _LOG_FATAL
    options.add_session_config_entry("session.load_model_format", "ONNX")  # and not its own format
    options.add_session_config_entry("optimization.disable_specified_optimizers", _REFUSED_OPTIMIZERS)
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads or 0
    return options


def _session(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """A session of one file and no other."""
    if has_external_data(path.read_bytes()):
        raise BundleError(
            f"ort cannot open {path}",
            got="a model with external data: tensors that lie in other files",
            expected="one file that holds all of its tensors; external data is not part of an artifact",
            fix="export again with edgedet, or save the model in one file",
        )
    return onnxruntime.InferenceSession(str(path), options, providers=_PROVIDERS)


def _specs(nodes: list[onnxruntime.NodeArg]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec.model_validate(
            {"name": node.name, "shape": node.shape, "dtype": _DTYPES.get(node.type, node.type)}
        )
        for node in nodes
    )
