"""NVIDIA's real Python bindings, and objects that allow what the bindings allow.

The extension of TensorRT's is linked to three libraries that the package registry lacks; stand-ins with the
symbols that it looks up are compiled on the spot, so that every class, signature and enum can be read. Those
of TensorRT for RTX come with their libraries, which need a GPU to run an engine. What
takes the place of a builder, an engine or a context then checks each attribute, argument name and argument
kind against the real class. Nothing here shows that TensorRT does what it is asked.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import inspect
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
_SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
# As docstrings of the bindings name their own classes.
_MODULES = ("tensorrt_bindings.tensorrt.", "tensorrt_rtx_bindings.tensorrt_rtx.")


class ContractViolationError(BaseException):
    """Something the bindings do not have; no `except Exception` of the code under test can swallow it."""


class CannotLoadError(Exception):
    """Why the bindings cannot be imported here."""


def load_rtx_bindings() -> ModuleType:
    """Import those of TensorRT for RTX."""
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        raise CannotLoadError("the extra tensorrt-rtx is not installed: pip install -e '.[tensorrt-rtx]'")
    return importlib.import_module("tensorrt_rtx_bindings")


def load_bindings(folder: Path, soname_version: int = 11) -> ModuleType:
    """Import TensorRT's against stand-in libraries compiled into `folder`.

    Their symbols stay out of the process's own scope, where libraries of TensorRT for RTX would find them.
    """
    compiler = shutil.which("gcc")
    if compiler is None:
        raise CannotLoadError("gcc is not installed: it compiles the libraries that stand in for TensorRT's")
    if importlib.util.find_spec("tensorrt_bindings") is None:
        raise CannotLoadError("tensorrt-cu13-bindings is not installed: pip install tensorrt-cu13-bindings")
    source = folder / "symbols.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in _SYMBOLS))
    for library in _LIBRARIES:
        name = f"lib{library}.so.{soname_version}"
        options = ["-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name)]
        subprocess.run([compiler, *options, str(source)], check=True)
        ctypes.CDLL(str(folder / name))
    return importlib.import_module("tensorrt_bindings")


@dataclass(frozen=True)
class Overload:
    """One signature of a bound method: kinds by parameter name, which must be given, the result."""

    parameters: Mapping[str, str]
    required: frozenset[str]
    result: str

    def refusal(self, bindings: ModuleType, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Why a call does not fit, empty where it does."""
        names = list(self.parameters)
        if len(args) > len(names):
            return f"takes {len(names)} arguments, got {len(args)}"
        given = dict(zip(names, args, strict=False))
        if repeated := given.keys() & kwargs.keys():
            return f"got {', '.join(repeated)} twice"
        given |= kwargs
        if unknown := given.keys() - set(names):
            return f"has no argument {', '.join(unknown)}, only {', '.join(names)}"
        if missing := self.required - given.keys():
            return f"needs {', '.join(missing)}"
        for name, value in given.items():
            if not _is_kind(bindings, value, self.parameters[name]):
                return f"takes {name} of kind {self.parameters[name]}, got {value!r}"
        return ""


def overloads(method: Any) -> list[Overload]:
    """The signatures in a bound method's docstring, `self` left out."""
    found = []
    pattern = rf"^(?:\d+\. )?{re.escape(method.__name__)}\((.*)\) -> (.*)$"
    for text, result in re.findall(pattern, method.__doc__ or "", re.MULTILINE):
        parameters, required = {}, set()
        for part in _split(text):
            name, _, rest = part.partition(": ")
            kind, default, _ = rest.partition(" = ")
            parameters[name] = kind
            if not default:
                required.add(name)
        parameters.pop("self")
        found.append(Overload(parameters, frozenset(required - {"self"}), result))
    if not found:
        raise ContractViolationError(f"no signature in the docstring of {method.__name__}")
    return found


def _split(text: str) -> list[str]:
    """Arguments at the commas that are in no bracket."""
    depth, parts = 0, [""]
    for character in text:
        depth += (character in "[(<") - (character in "])>")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _is_kind(bindings: ModuleType, value: Any, kind: str) -> bool:
    if kind.startswith(_MODULES):
        wanted: Any = bindings
        for part in _bare(kind).split("."):
            wanted = getattr(wanted, part)
        return isinstance(value, wanted) or (
            isinstance(value, StandIn) and issubclass(value.bound_class, wanted)
        )
    if kind == "str":
        return isinstance(value, str)
    if kind == "typing.SupportsInt":
        return hasattr(value, "__int__") and not isinstance(value, (str, bytes))
    if kind == "typing_extensions.Buffer":
        return isinstance(value, (bytes, bytearray, memoryview))
    if kind == "bool":
        return isinstance(value, bool)
    raise ContractViolationError(f"the contract knows no arguments of kind {kind}: teach it")


def _bare(kind: str) -> str:
    """A class's name without its module's."""
    for module in _MODULES:
        kind = kind.removeprefix(module)
    return kind


class Recording:
    """What was used, and what the stand-ins answer: a value or a function by "Class.attribute"."""

    def __init__(self, bindings: ModuleType, answers: Mapping[str, Any]) -> None:
        self.bindings = bindings
        self.answers = dict(answers)
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def names(self) -> list[str]:
        """Everything used, in order."""
        return [name for name, _ in self.calls]

    def check(self, name: str, method: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Overload:
        """Record a call and return the signature that it fits."""
        signatures = overloads(method)
        refusals = [one.refusal(self.bindings, args, kwargs) for one in signatures]
        if "" not in refusals:
            raise ContractViolationError(f"{name} " + "; or ".join(refusals))
        self.calls.append((name, (*args, *kwargs.values())))
        return signatures[refusals.index("")]

    def answer(self, name: str, args: tuple[Any, ...], result: str) -> Any:
        """What a method gives: the test's answer, or an object of the declared kind."""
        if name in self.answers:
            answer = self.answers[name]
            return answer(*args) if callable(answer) else answer
        if result == "nvonnxparser::IParserError":  # bound under another name after this docstring was made
            result = _MODULES[0] + "ParserError"
        if result.startswith(_MODULES):
            return StandIn(self, getattr(self.bindings, _bare(result)))
        return {"None": None, "bool": True}[result]


class StandIn:
    """An object with the attributes of a bound class and no others."""

    def __init__(self, recording: Recording, bound_class: type) -> None:
        object.__setattr__(self, "recording", recording)
        object.__setattr__(self, "bound_class", bound_class)

    def _find(self, attribute: str) -> tuple[str, Any]:
        name = f"{self.bound_class.__name__}.{attribute}"
        if not hasattr(self.bound_class, attribute):
            raise ContractViolationError(f"the bindings have no {name}")
        return name, getattr(self.bound_class, attribute)

    def __getattr__(self, attribute: str) -> Any:
        name, member = self._find(attribute)
        if isinstance(member, property):
            self.recording.calls.append((name, ()))
            return self.recording.answers[name]

        def call(*args: Any, **kwargs: Any) -> Any:
            overload = self.recording.check(name, member, args, kwargs)
            return self.recording.answer(name, (*args, *kwargs.values()), overload.result)

        return call

    def __setattr__(self, attribute: str, value: Any) -> None:
        name, member = self._find(attribute)
        if not isinstance(member, property) or member.fset is None:
            raise ContractViolationError(f"{name} cannot be set")
        self.recording.calls.append((name, (value,)))


def tensorrt_module(recording: Recording, stood_in: tuple[str, ...]) -> ModuleType:
    """A module whose named classes give stand-ins; everything else is the bindings' own."""

    class Module(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__") and name != "__version__":
                raise AttributeError(name)
            if not hasattr(recording.bindings, name):
                raise ContractViolationError(f"the bindings have no {name}")
            member = getattr(recording.bindings, name)
            if name not in stood_in:
                return member

            def construct(*args: Any, **kwargs: Any) -> StandIn:
                recording.check(name, member.__init__, args, kwargs)
                return StandIn(recording, member)

            return construct

    return Module("tensorrt")


class HostCuda(ModuleType):
    """NVIDIA's `cuda.bindings.runtime` with host memory as device memory; its signatures are held.

    Attributes:
        alive: Sizes of what is allocated, by address, and streams that are open.
        failing: Names of calls that give an error.
    """

    def __init__(self, cudart: ModuleType) -> None:
        super().__init__("runtime")
        self.cudart = cudart
        self.failing: set[str] = set()
        self.alive: dict[int, np.ndarray[Any, Any] | None] = {}

    def __getattr__(self, name: str) -> Any:
        if not hasattr(self.cudart, name):
            raise ContractViolationError(f"cuda.bindings.runtime has no {name}")
        member = getattr(self.cudart, name)
        if not inspect.isbuiltin(member) and not inspect.isroutine(member):
            return member
        simulation = vars(HostCuda).get(f"_{name}")
        simulated: Callable[..., tuple[Any, ...]] = simulation.__get__(self) if simulation else member

        def call(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
            bound = inspect.signature(member).bind(*args, **kwargs)
            if name in self.failing:
                return (self.cudart.cudaError_t.cudaErrorMemoryAllocation, None)
            return simulated(*bound.args)

        return call

    @property
    def _ok(self) -> Any:
        return self.cudart.cudaError_t.cudaSuccess

    def _cudaGetDeviceCount(self) -> tuple[Any, ...]:  # noqa: N802
        return (self._ok, 1)

    def _cudaStreamCreate(self) -> tuple[Any, ...]:  # noqa: N802
        self.alive[0x5EED] = None
        return (self._ok, self.cudart.cudaStream_t(0x5EED))

    def _cudaStreamDestroy(self, stream: Any) -> tuple[Any, ...]:  # noqa: N802
        del self.alive[int(stream)]
        return (self._ok,)

    def _cudaStreamSynchronize(self, stream: Any) -> tuple[Any, ...]:  # noqa: N802
        return (self._ok if int(stream) in self.alive else self.cudart.cudaError_t.cudaErrorInvalidValue,)

    def _cudaMalloc(self, size: int) -> tuple[Any, ...]:  # noqa: N802
        memory = np.zeros(size, np.uint8)
        self.alive[memory.ctypes.data] = memory
        return (self._ok, memory.ctypes.data)

    def _cudaFree(self, address: int) -> tuple[Any, ...]:  # noqa: N802
        del self.alive[int(address)]
        return (self._ok,)

    def _cudaMemcpyAsync(  # noqa: N802
        self, target: int, source: int, count: int, kind: Any, stream: Any
    ) -> tuple[Any, ...]:
        kinds = self.cudart.cudaMemcpyKind
        device = {kinds.cudaMemcpyHostToDevice: target, kinds.cudaMemcpyDeviceToHost: source}[kind]
        memory = self.alive[device]
        assert memory is not None
        assert memory.nbytes == count
        assert int(stream) in self.alive
        ctypes.memmove(target, source, count)
        return (self._ok,)
