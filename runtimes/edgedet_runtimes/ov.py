"""OpenVINO on the CPU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino

from edgedet.boxes import Floats
from edgedet.bundle import weights_beside
from edgedet.embedded import RT_INFO_PATH, RT_INFO_WEIGHTS
from edgedet.errors import BundleError
from edgedet.executed import ExecutedGraph
from edgedet.files import sha256_of
from edgedet.intermediate import Intermediates
from edgedet.saturation import IntegerLayer
from edgedet.spec import TensorSpec
from edgedet_runtimes.lanes import Lanes, inferences_side_by_side
from edgedet_runtimes.ov_graph import executed_graph
from edgedet_runtimes.ov_integer_layers import integer_layers
from edgedet_runtimes.ov_intermediates import intermediate, quantizers_without_marks
from edgedet_runtimes.shell import Runtime, Signature

_XML_HEAD = 64

# Without the hint, CPUs that have bfloat16 units run float models in it, outside any parity budget of fp32.
_PROPERTIES = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}


class OpenVinoRuntime(Runtime):
    """An .xml file with its .bin beside it; feeds are read in place, outputs copied out of the request."""

    name = "openvino"

    @staticmethod
    def version() -> str:
        """Version of the openvino package, without its build number."""
        return str(openvino.__version__).partition("-")[0]

    @classmethod
    def _embedded(cls, path: Path) -> str | None:
        model = _read_model(openvino.Core(), path)
        keys = list(RT_INFO_PATH)
        return str(model.get_rt_info(keys).astype(str)) if model.has_rt_info(keys) else None

    @classmethod
    def _integer_layers(cls, path: Path) -> tuple[IntegerLayer, ...]:
        return integer_layers(_read_model(openvino.Core(), path))

    def _open(self) -> Signature:
        # Read once: a file that is replaced meanwhile is another detector's.
        model = _read_model(openvino.Core(), self.path)

        def new_request() -> openvino.InferRequest:
            # Of a compilation of its own: requests of one wait for each other.
            return self._compile(_PROPERTIES, model).create_infer_request()

        self._lanes = Lanes(new_request, inferences_side_by_side(self.threads))
        with self._lanes.one() as request:
            compiled = request.get_compiled_model()
        return _specs(compiled.inputs), _specs(compiled.outputs)

    def _compile(
        self, properties: Mapping[str, str], model: openvino.Model | None = None
    ) -> openvino.CompiledModel:
        core = openvino.Core()
        threads = {} if self.threads is None else {"INFERENCE_NUM_THREADS": str(self.threads)}
        return core.compile_model(model or _read_model(core, self.path), "CPU", {**properties, **threads})

    def _executed(self, feeds: Mapping[str, Floats], runs: int) -> ExecutedGraph:
        compiled = self._compile({**_PROPERTIES, "PERF_COUNT": "YES"})
        request = compiled.create_infer_request()
        micros: dict[str, float] = defaultdict(float)
        for _ in range(runs):
            request.infer(feeds)
            for node in request.get_profiling_info():
                micros[node.node_name] += node.real_time.total_seconds()
        return executed_graph(self.name, compiled.get_runtime_model(), micros)

    def _intermediates(self, feeds: Mapping[str, Floats]) -> Intermediates:
        model = _read_model(openvino.Core(), self.path)
        nodes = quantizers_without_marks(model)
        model.add_outputs([node.output(0) for node in nodes])
        results = self._compile(_PROPERTIES, model).create_infer_request().infer(feeds)
        outputs = {spec.name: np.array(results[spec.name]) for spec in self.outputs}
        values = list(results.values())[len(outputs) :]
        tensors = (intermediate(node, np.asarray(v)) for node, v in zip(nodes, values, strict=True))
        return Intermediates(tuple(tensors), outputs)

    def _run(self, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        with self._lanes.one() as request:
            results = request.infer(feeds, share_inputs=True, share_outputs=False)
        return {spec.name: results[spec.name] for spec in self.outputs}

    def _close(self) -> None:
        del self._lanes


def _read_model(core: openvino.Core, path: Path) -> openvino.Model:
    """Read the IR and nothing else: left to itself, OpenVINO tries every format that it knows on the file.

    The weights are named so that a missing .bin is an error.
    """
    with path.open("rb") as file:
        if not file.read(_XML_HEAD).lstrip().startswith(b"<"):
            raise ValueError("the file is not XML")
    weights = weights_beside(path)
    model = core.read_model(str(path), str(weights))
    keys = list(RT_INFO_WEIGHTS)  # files of earlier versions have none
    named = str(model.get_rt_info(keys).astype(str)) if model.has_rt_info(keys) else ""
    if named and named != sha256_of(weights):
        raise BundleError(
            f"{weights} is not the weights of {path.name}",
            got="a file of another sha256",
            expected="the .bin that was exported with this .xml",
            fix="copy the two files together again, or export again; a tool that writes both anew has to "
            f"empty {'/'.join(RT_INFO_WEIGHTS)} in rt_info",
        )
    return model


def _specs(ports: list[openvino.Output]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec.model_validate(
            {
                "name": port.get_any_name(),
                "shape": tuple(port.get_shape()),
                "dtype": port.get_element_type().to_dtype().name,
            }
        )
        for port in ports
    )
