"""LiteRT on the CPU; an installed tflite-runtime, its predecessor of the same interface, also serves."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgedet.boxes import Floats
from edgedet.embedded import SPEC_KEY
from edgedet.executed import ExecutedGraph
from edgedet.intermediate import Intermediate, Intermediates
from edgedet.saturation import IntegerLayer
from edgedet.spec import TensorSpec
from edgedet_runtimes.lanes import Lanes, inferences_side_by_side
from edgedet_runtimes.shell import Runtime, Signature
from edgedet_runtimes.tflite_graph import executed_graph
from edgedet_runtimes.tflite_metadata import read_metadata

try:
    from ai_edge_litert.interpreter import Interpreter

    _DISTRIBUTION = "ai-edge-litert"
except ModuleNotFoundError as missing:
    try:
        from tflite_runtime.interpreter import Interpreter
    except ModuleNotFoundError:
        raise missing from None
    _DISTRIBUTION = "tflite-runtime"


@dataclass(frozen=True, slots=True)
class Affine:
    """Real value = (integer - zero_point) * scale, the integer in the range of its dtype.

    Rounds half to even and multiplies by the reciprocal, as torch's fake quantization does, so that an
    artifact is fed the integers of the module that it was converted from.
    """

    scale: np.float32
    zero_point: int
    dtype: np.dtype[Any]

    def quantize(self, values: Floats) -> NDArray[np.integer[Any]]:
        """Real to integer, saturating."""
        limits = np.iinfo(self.dtype)
        with np.errstate(over="ignore"):  # infinity saturates as well
            steps = np.multiply(values, np.float32(1.0 / float(self.scale)))
        np.rint(steps, out=steps)
        steps += self.zero_point
        return np.clip(steps, limits.min, limits.max, out=steps).astype(self.dtype)

    def dequantize(self, integers: NDArray[np.integer[Any]]) -> Floats:
        """Integer to real."""
        return (integers.astype(np.float32) - np.float32(self.zero_point)) * self.scale


@dataclass(frozen=True, slots=True)
class _Slot:
    """A tensor of the interpreter, which may differ from what callers see.

    Attributes:
        index: In the interpreter's list.
        affine: Where the file's is quantized and callers see floats.
        channels_last: The file's is `[n, h, w, 3]` and callers give `[n, 3, h, w]`.
    """

    index: int
    affine: Affine | None
    channels_last: bool = False


class TfliteRuntime(Runtime):
    """A .tflite file with one signature whose names are the spec's.

    Where the file's inputs or outputs are quantized, the runtime quantizes and dequantizes: callers see
    float32. Where its image is channels last, as TFLite has it, the runtime interleaves the planes into the
    interpreter's memory: callers give what every runtime takes.
    """

    name = "tflite"

    @staticmethod
    def version() -> str:
        """Version of the package in use, and its name where that is not ai-edge-litert."""
        return version(_DISTRIBUTION) + ("" if _DISTRIBUTION == "ai-edge-litert" else f" ({_DISTRIBUTION})")

    @classmethod
    def _embedded(cls, path: Path) -> str | None:
        data = read_metadata(path.read_bytes(), SPEC_KEY)
        return None if data is None else data.decode("utf-8")

    @classmethod
    def _integer_layers(cls, path: Path) -> tuple[IntegerLayer, ...]:  # noqa: ARG003
        return ()  # XNNPACK's kernels add products in 32 bits, on every processor

    def _open(self) -> Signature:
        # Read once: a file that is replaced meanwhile is another detector's.
        model = self.path.read_bytes()

        def new_interpreter() -> Interpreter:
            interpreter = Interpreter(model_content=model, num_threads=self.threads)
            interpreter.allocate_tensors()
            return interpreter

        # Of the first alone: later ones come while other threads may write to standard error.
        with _native_stderr_silenced():
            self._lanes = Lanes(new_interpreter, inferences_side_by_side(self.threads))
        with self._lanes.one() as interpreter:
            signature = interpreter.get_signature_runner()
            inputs, outputs = signature.get_input_details(), signature.get_output_details()
        given = {spec.name: spec.shape for spec in self.inputs}
        self._input_slots = {
            name: _slot(detail, _is_channels_last(detail, given.get(name, ())))
            for name, detail in inputs.items()
        }
        self._output_slots = {name: _slot(detail) for name, detail in outputs.items()}
        found = tuple(
            spec.model_copy(update={"shape": given[spec.name]})
            if self._input_slots[spec.name].channels_last
            else spec
            for spec in _specs(inputs)
        )
        return found, _specs(outputs)

    def _run(self, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        with self._lanes.one() as interpreter:
            for name, slot in self._input_slots.items():
                _write(interpreter, slot, feeds[name])
            interpreter.invoke()
            return {name: _read(interpreter, slot) for name, slot in self._output_slots.items()}

    def _executed(self, feeds: Mapping[str, Floats], runs: int) -> ExecutedGraph:  # noqa: ARG002
        with self._lanes.one() as interpreter:
            names = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
            return executed_graph(self.name, interpreter._get_ops_details(), names)

    def _intermediates(self, feeds: Mapping[str, Floats]) -> Intermediates:
        from edgedet_runtimes.tflite_intermediates import with_integer_outputs

        ((name, slot),) = self._input_slots.items()
        model, added = with_integer_outputs(self.path.read_bytes(), slot.channels_last)
        with _native_stderr_silenced():
            interpreter = Interpreter(model_content=model, num_threads=self.threads)
            interpreter.allocate_tensors()
        _write(interpreter, slot, feeds[name])
        interpreter.invoke()
        tensors = []
        for one in added:
            integers = interpreter.get_tensor(one.index)
            integers = integers.transpose(0, 3, 1, 2) if one.channels_last else integers
            tensors.append(Intermediate(integers, one.scale, one.zero_point))
        outputs = {name: _read(interpreter, slot) for name, slot in self._output_slots.items()}
        return Intermediates(tuple(tensors), outputs)

    def _close(self) -> None:
        del self._lanes


def _affine(detail: Mapping[str, Any]) -> Affine | None:
    parameters, dtype = detail["quantization_parameters"], np.dtype(detail["dtype"])
    if dtype not in (np.dtype(np.int8), np.dtype(np.uint8)) or len(parameters["scales"]) != 1:
        return None
    return Affine(np.float32(parameters["scales"][0]), int(parameters["zero_points"][0]), dtype)


def _write(interpreter: Interpreter, slot: _Slot, feed: Floats) -> None:
    values = slot.affine.quantize(feed) if slot.affine else feed
    if not slot.channels_last:
        interpreter.set_tensor(slot.index, values)
        return
    # Views of the interpreter's memory, which must be gone when it is invoked.
    for planes, pixels in zip(values, interpreter.tensor(slot.index)(), strict=True):
        # Several times as fast as a transposed copy of NumPy's. What does not fit it puts elsewhere.
        if not np.may_share_memory(cv2.merge(list(planes), dst=pixels), pixels):
            raise ValueError(
                f"{values.dtype} {list(values.shape)} does not fit {pixels.dtype} {list(pixels.shape)}"
            )


def _read(interpreter: Interpreter, slot: _Slot) -> Floats:
    array = interpreter.get_tensor(slot.index)  # a copy, unlike Interpreter.tensor
    return slot.affine.dequantize(array) if slot.affine else array


def _slot(detail: Mapping[str, Any], channels_last: bool = False) -> _Slot:
    return _Slot(int(detail["index"]), _affine(detail), channels_last)


def _is_channels_last(detail: Mapping[str, Any], planes: tuple[int, ...]) -> bool:
    shape = tuple(int(side) for side in detail["shape"])
    return shape != planes and shape == (*planes[:1], *planes[2:], *planes[1:2])


def _specs(details: Mapping[str, Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec.model_validate(
            {
                "name": name,
                "shape": tuple(int(side) for side in detail["shape"]),
                "dtype": "float32" if _affine(detail) else np.dtype(detail["dtype"]).name,
            }
        )
        for name, detail in details.items()
    )


_STDERR = 2
_stderr_lock = threading.Lock()


@contextmanager
def _native_stderr_silenced() -> Iterator[None]:
    """Keep "Created TensorFlow Lite XNNPACK delegate" off the terminal.

    LiteRT's logger writes to descriptor 2 and has neither a Python call nor a variable for its level.
    Failures arrive as exceptions all the same.
    """
    with _stderr_lock:
        try:
            saved = os.dup(_STDERR)
        except OSError:  # there is no stderr to keep clean
            yield
            return
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, _STDERR)
        try:
            yield
        finally:
            os.dup2(saved, _STDERR)
            os.close(saved)
            os.close(null)
