"""The contract of a runtime, and the checks that all of them share.

A runtime sees tensors only: it knows nothing of images, priors or suppression. A vendor's file implements
`version`, `_embedded`, `_open`, `_run` and `_close`; names, shapes and dtypes are checked here, and vendor
exceptions become `BundleError` or `VendorError` here. Threads may share an opened runtime; processes may not,
because vendors' threads and locks do not survive a fork.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Literal, Self

import numpy as np

from edgedet.boxes import Floats
from edgedet.errors import BundleError, EdgedetError, TensorError, UsageError, VendorError
from edgedet.executed import ExecutedGraph
from edgedet.intermediate import Intermediates
from edgedet.registry import RUNTIMES, missing_extra
from edgedet.saturation import IntegerLayer
from edgedet.spec import DetectorSpec, TensorSpec

Signature = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]


class Runtime(ABC):
    """An opened artifact.

    Args:
        path: The artifact.
        spec: Its spec; read from the artifact when not given.
        threads: CPU threads, at least 1; the vendor's choice when not given.

    Attributes:
        inputs: What `run` takes.
        outputs: What `run` gives.

    Raises:
        BundleError: The file cannot be read by the vendor, holds no spec, or its inputs and outputs are not
            those of the spec.
        MissingError: The vendor needs a package, a device or a driver that is not here.
    """

    name: ClassVar[str]

    def __init__(self, path: Path, *, spec: DetectorSpec | None = None, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise UsageError(
                f"{self.name} cannot run on that many threads",
                got=str(threads),
                expected="1 or more",
                fix="leave it out to let the runtime choose",
            )
        self.path = path
        self.threads = threads
        self.spec = spec or self.read_spec(path)
        self.inputs: tuple[TensorSpec, ...] = (self.spec.input.tensor,)
        self.outputs: tuple[TensorSpec, ...] = tuple(
            TensorSpec(name=o.name, shape=o.shape, dtype=o.dtype) for o in self.spec.outputs
        )
        self._running, self._process = _Running(), os.getpid()
        _check_is_file(self.name, path)
        with _vendor_faults(self.name, "open", path):
            found_inputs, found_outputs = self._open()
        try:
            self._check_signature("inputs", found_inputs, self.inputs)
            self._check_signature("outputs", found_outputs, self.outputs)
        except BundleError:
            self.close()
            raise

    @staticmethod
    @abstractmethod
    def version() -> str:
        """The vendor's version, for `edgedet doctor` and reports."""

    @classmethod  # noqa: B027
    def check_device(cls) -> None:
        """Refuse a machine that lacks the device which the vendor computes on; a CPU is always there.

        Raises:
            MissingDeviceError: The device or its driver is not there.
        """

    @classmethod
    @abstractmethod
    def _embedded(cls, path: Path) -> str | None:
        """The JSON of the spec in the artifact, None where it holds none."""

    @abstractmethod
    def _open(self) -> Signature:
        """Load the artifact; returns the inputs and outputs as `run` will take and give them.

        Frees what it holds when it raises; `_close` is called once, and only after it returned.
        """

    @abstractmethod
    def _run(self, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        """One inference; feeds were checked and are C-contiguous. The caller owns what is returned.

        Several threads call it at once.
        """

    @abstractmethod
    def _close(self) -> None:
        """Free what the vendor holds; no thread is in `_run` then."""

    def _executed(self, feeds: Mapping[str, Floats], runs: int) -> ExecutedGraph | None:  # noqa: ARG002
        """What the vendor says that it executes, after so many inferences; None where it says nothing."""
        return None

    def _intermediates(self, feeds: Mapping[str, Floats]) -> Intermediates:  # noqa: ARG002
        """The integer tensors and outputs of one inference; nothing where the vendor does not give them."""
        return Intermediates()

    @classmethod
    def _integer_layers(cls, path: Path) -> tuple[IntegerLayer, ...] | None:  # noqa: ARG003
        """The layers that may saturate on x86 processors; None where the vendor has no integers on these."""
        return None

    @classmethod
    def integer_layers(cls, path: Path) -> tuple[IntegerLayer, ...] | None:
        """The layers of an artifact whose sums may saturate on x86 processors without VNNI.

        They are read from the file, and nothing is run.

        Returns:
            Those with int8 weights and 8-bit activations, with their weights; none where the vendor's kernels
            do not saturate; None where it computes no integers on such processors (PyTorch, TensorRT).

        Raises:
            BundleError: The file cannot be read.
        """
        _check_is_file(cls.name, path)
        with _vendor_faults(cls.name, "read", path):
            return cls._integer_layers(path)

    @classmethod
    def read_spec(cls, path: Path) -> DetectorSpec:
        """The spec that is embedded in an artifact.

        Raises:
            BundleError: The file cannot be read by the vendor, or holds no spec that this edgedet reads.
        """
        _check_is_file(cls.name, path)
        with _vendor_faults(cls.name, "read", path):
            text = cls._embedded(path)
        if text is None:
            raise BundleError(
                f"cannot run {path} on its own",
                got="a model without a detector spec inside",
                expected="a file that `edgedet export` wrote",
                fix="export the detector again, or open the bundle that the file belongs to",
            )
        return DetectorSpec.from_json(text, source=str(path))

    def run(self, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        """Run one inference.

        Args:
            feeds: Arrays by input name, of the dtype and shape in `inputs`; copied where not C-contiguous.

        Returns:
            Arrays by output name, owned by the caller.

        Raises:
            TensorError: A feed is missing, unknown, or of another dtype or shape.
            UsageError: The runtime has been closed, or was opened by another process.
            VendorError: The vendor's runtime failed.
        """
        with self._in_use(), _vendor_faults(self.name, "run", self.path):
            return self._run(self._checked(feeds))

    def intermediates(self, feeds: Mapping[str, Floats]) -> Intermediates:
        """The integer tensors between operators.

        The artifact is opened a second time with these tensors as further outputs, so that they come from the
        kernels that `run` uses; OpenVINO adds residuals beside its convolutions then, and not in them.

        Args:
            feeds: As for `run`.

        Returns:
            One tensor for each quantized activation; none for an artifact in float, PyTorch and TensorRT.

        Raises:
            TensorError: As `run`.
            UsageError: The runtime has been closed, or was opened by another process.
            VendorError: The vendor's runtime failed.
        """
        with self._in_use(), _vendor_faults(self.name, "run", self.path):
            return self._intermediates(self._checked(feeds))

    def executed(self, runs: int = 8) -> ExecutedGraph | None:
        """What the vendor executes for one inference, read from the vendor after it loaded the artifact.

        The artifact may be opened a second time, with the vendor's profiling on: shares of time are those of
        so few inferences on an input of zeros, and no benchmark.

        Args:
            runs: Inferences over which shares of time are summed, at least 1.

        Returns:
            The graph; None where the vendor does not tell (PyTorch, which executes what is written).

        Raises:
            UsageError: The runtime has been closed, or was opened by another process.
            VendorError: The vendor's runtime failed.
        """
        feeds = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in self.inputs}
        with self._in_use(), _vendor_faults(self.name, "run", self.path):
            return self._executed(feeds, max(1, runs))

    def close(self) -> None:
        """Free the vendor's resources, once the inferences under way are done.

        The runtime cannot be used afterwards. Closing again does nothing, nor does closing in a process that
        did not open it.
        """
        if self._process == os.getpid() and self._running.end():
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Keep the runtime open for one inference."""
        if self._process != os.getpid():  # first: another thread may have held the lock at the fork
            raise UsageError(
                f"{self.name} cannot run {self.path}",
                got="a runtime that was opened before the process forked",
                expected="one that this process has opened",
                fix='start processes with multiprocessing.get_context("spawn"), and open it in each of them',
            )
        if not self._running.begin():
            raise UsageError(
                f"{self.name} cannot run {self.path}",
                got="a runtime that has been closed",
                expected="an open one",
                fix="open the artifact again",
            )
        try:
            yield
        finally:
            if self._running.done():
                self._close()

    def _checked(self, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        """The feeds as vendors take them: those of the spec, C-contiguous."""
        if feeds.keys() != {spec.name for spec in self.inputs}:
            raise TensorError(
                f"{self.name} was fed the wrong tensors",
                got=", ".join(map(str, feeds)) or "none",
                expected=", ".join(spec.name for spec in self.inputs),
                fix="feed exactly the inputs of the spec",
            )
        for spec in self.inputs:
            feed = feeds[spec.name]
            is_array = isinstance(feed, np.ndarray)
            if not is_array or feed.shape != spec.shape or feed.dtype != np.dtype(spec.dtype):
                raise TensorError(
                    f"{self.name} cannot take {spec.name}",
                    got=f"{feed.dtype} {list(feed.shape)}" if is_array else f"a {type(feed).__name__}",
                    expected=f"{spec.dtype} {list(spec.shape)}",
                    fix="make the tensor with edgedet.preprocess.preprocess",
                )
        return {name: np.ascontiguousarray(feed) for name, feed in feeds.items()}

    def _check_signature(
        self, what: str, found: tuple[TensorSpec, ...], expected: tuple[TensorSpec, ...]
    ) -> None:
        if sorted(found, key=lambda t: t.name) != sorted(expected, key=lambda t: t.name):
            raise BundleError(
                f"the {what} of {self.path} are not those of its spec",
                got="; ".join(f"{t.name} {t.dtype} {list(t.shape)}" for t in found),
                expected="; ".join(f"{t.name} {t.dtype} {list(t.shape)}" for t in expected),
                fix="export the detector again",
            )


class _Running:
    """The threads that have an inference under way."""

    def __init__(self) -> None:
        self._changed, self._threads = threading.Condition(), list[int]()
        self._ended = self._is_left_to_the_last = False

    def begin(self) -> bool:
        """Add this thread, unless there are to be none any more."""
        with self._changed:
            if not self._ended:
                self._threads.append(threading.get_ident())
            return not self._ended

    def done(self) -> bool:
        """Take this thread out; whether it is to free what the vendor holds."""
        with self._changed:
            self._threads.remove(threading.get_ident())
            self._changed.notify_all()
            return self._is_left_to_the_last and not self._threads

    def end(self) -> bool:
        """Let none begin, and wait for the last one; whether the caller is to free what the vendor holds."""
        with self._changed:
            if self._ended:
                return False
            self._ended = True
            if threading.get_ident() in self._threads:  # a signal's handler, which cannot wait for itself
                self._is_left_to_the_last = True
                return False
            self._changed.wait_for(lambda: not self._threads)
            return True


def _check_is_file(runtime: str, path: Path) -> None:
    if not path.is_file():
        raise BundleError(
            f"{runtime} cannot open {path}",
            got="a folder" if path.is_dir() else "no such file",
            expected="an artifact file",
            fix="check the path; a bundle is opened with edgedet.load",
        )


@contextmanager
def _vendor_faults(runtime: str, verb: Literal["read", "open", "run"], path: Path) -> Iterator[None]:
    """Turn whatever a vendor raises into an exception of our tree."""
    try:
        yield
    except EdgedetError:
        raise
    except ModuleNotFoundError as exc:
        raise missing_extra(f"runtime {runtime!r}", exc, RUNTIMES.entry(runtime).extra) from exc
    except Exception as exc:
        kind = VendorError if verb == "run" else BundleError
        raise kind(
            f"{runtime} could not {verb} {path}",
            got=f"{type(exc).__name__}: {' '.join(str(exc).split())[:300]}",
            expected="an artifact that this version of the runtime can use",
            fix="copy the file again (`edgedet inspect BUNDLE` tells which are whole), or export again",
        ) from exc
