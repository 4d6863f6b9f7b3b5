"""PyTorch without compilation: the reference that every exported artifact is compared with."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from edgedet.boxes import Floats
from edgedet.errors import BundleError, CheckpointError
from edgedet.models.checkpoint import load_checkpoint, provenance_of, read_config
from edgedet.models.detector import Detector
from edgedet.spec import DetectorSpec, TensorSpec
from edgedet_runtimes.shell import Runtime, Signature

_turn = threading.Lock()


def _begin_anew() -> None:
    """In a forked process: a lock that no thread holds, and none of OpenMP's threads, which stayed behind."""
    global _turn, _most_threads
    _turn, _most_threads = threading.Lock(), 1
    torch.set_num_threads(1)


_most_threads: int | None = None
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


class EagerRuntime(Runtime):
    """A .safetensors checkpoint that describes its own detector; outputs are freshly allocated by torch."""

    name = "eager"

    @staticmethod
    def version() -> str:
        """Version of the torch package."""
        return str(torch.__version__)

    @classmethod
    def _embedded(cls, path: Path) -> str | None:
        with _as_artifact():
            return _spec(path).to_json()

    def _open(self) -> Signature:
        with _as_artifact():
            self._detector = load_checkpoint(self.path)
        spec = self._detector.spec()
        outputs = tuple(TensorSpec(name=o.name, shape=o.shape, dtype=o.dtype) for o in spec.outputs)
        return (spec.input.tensor,), outputs

    def _run(self, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        (images,) = feeds.values()
        # PyTorch's number of threads is one for the process, so that one detector has it after another.
        with _turn, _threads(_most_threads or self.threads), torch.inference_mode():
            # A copy: torch has no read-only tensors, and a caller's array may be read-only.
            outputs = self._detector(torch.tensor(images))
        return {
            spec.name: output.contiguous().numpy() for spec, output in zip(self.outputs, outputs, strict=True)
        }

    def _close(self) -> None:
        del self._detector


def _spec(path: Path) -> DetectorSpec:
    """The spec follows from the configuration alone, so that no layer is built to read it."""
    return Detector(read_config(path), nn.Identity(), nn.Identity()).spec(provenance_of(path))


@contextmanager
def _as_artifact() -> Iterator[None]:
    """Weights that do not load are a damaged artifact here, as in every other runtime."""
    try:
        yield
    except CheckpointError as exc:
        raise BundleError(exc.summary, got=exc.got, expected=exc.expected, fix=exc.fix) from exc


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Run a block on `count` threads; torch's setting is one for the process, so it is put back."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
