"""The contract of a runtime, and the checks that all of them share.

A runtime sees tensors only: it knows nothing of images, priors or suppression. A vendor's file implements `_open`, `_run`
and `_close` and reads the embedded spec in `read_spec`; names, shapes and dtypes are checked here, and vendor exceptions
become `VendorError` or `BundleError` here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import numpy as np

from edgedet.boxes import Floats
from edgedet.errors import BundleError, EdgedetError, TensorError, VendorError
from edgedet.spec import DetectorSpec, TensorSpec


class Runtime(ABC):
    """An opened artifact.

    Args:
        path: The artifact.
        spec: Its spec; read from the artifact when not given.
        threads: CPU threads; the vendor's choice when not given.

    Raises:
        BundleError: The file cannot be read by the vendor, or its inputs and outputs are not the spec's.
    """

    name: ClassVar[str]

    def __init__(self, path: Path, *, spec: DetectorSpec | None = None, threads: int | None = None) -> None:
        self.path = path
        self.threads = threads
        if not path.is_file():
            raise BundleError(
                f"{self.name} cannot open {path}",
                got="a folder" if path.is_dir() else "no such file",
                expected="an artifact file",
                fix="check the path; a bundle is opened with edgedet.load",
            )
        self.spec = self._translated("read", lambda: spec or self.read_spec(path))
        self.inputs: tuple[TensorSpec, ...] = (self.spec.input.tensor,)
        self.outputs: tuple[TensorSpec, ...] = tuple(
            TensorSpec(name=o.name, shape=o.shape, dtype=o.dtype) for o in self.spec.outputs
        )
        found_inputs, found_outputs = self._translated("open", self._open)
        self._check_signature("inputs", found_inputs, self.inputs)
        self._check_signature("outputs", found_outputs, self.outputs)

    @classmethod
    @abstractmethod
    def read_spec(cls, path: Path) -> DetectorSpec:
        """The spec that is embedded in the artifact."""

    @abstractmethod
    def _open(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Load the artifact; returns the inputs and outputs as the vendor reports them."""

    @abstractmethod
    def _run(self, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        """One inference; feeds have been checked."""

    @abstractmethod
    def _close(self) -> None:
        """Free what the vendor holds."""

    def run(self, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        """Run one inference.

        Args:
            feeds: Arrays by input name, C-contiguous, of the dtype and shape in `inputs`.

        Returns:
            Arrays by output name, owned by the caller.

        Raises:
            TensorError: A feed is missing, unknown, or of another dtype or shape.
            VendorError: The vendor's runtime failed.
        """
        self._check_feeds(feeds)
        outputs: dict[str, Floats] = self._translated("run", lambda: self._run(feeds))
        return outputs

    def close(self) -> None:
        """Free the vendor's resources; the runtime cannot be used afterwards."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_feeds(self, feeds: Mapping[str, Floats]) -> None:
        for spec in self.inputs:
            feed = feeds.get(spec.name)
            if feed is None or len(feeds) != len(self.inputs):
                raise TensorError(
                    f"{self.name} was fed the wrong tensors",
                    got=", ".join(feeds) or "none",
                    expected=", ".join(s.name for s in self.inputs),
                    fix="feed exactly the inputs of the spec",
                )
            if feed.shape != spec.shape or feed.dtype != np.dtype(spec.dtype):
                raise TensorError(
                    f"{self.name} cannot take {spec.name}",
                    got=f"{feed.dtype} {list(feed.shape)}",
                    expected=f"{spec.dtype} {list(spec.shape)}",
                    fix="make the tensor with edgedet.preprocess.preprocess",
                )

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

    def _translated(self, verb: str, call):  # type: ignore[no-untyped-def]
        try:
            return call()
        except (EdgedetError, ModuleNotFoundError):
            raise
        except Exception as exc:
            kind = VendorError if verb == "run" else BundleError
            raise kind(
                f"{self.name} could not {verb} {self.path}",
                got=f"{type(exc).__name__}: {str(exc).strip()[:300]}",
                expected="an artifact that this version of the runtime can use",
                fix="check that the file is whole (edgedet inspect), or export again",
            ) from exc
