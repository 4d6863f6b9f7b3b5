"""Open what was written again and hold it against what it was written from, on real images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from edgedet import registry
from edgedet.boxes import Floats
from edgedet.data import Dataset
from edgedet.errors import DataError, MissingExtraError, VerificationError
from edgedet.preprocess import preprocess
from edgedet.spec import DetectorSpec, InputSpec
from edgedet_export.target import Source

# These tell a broken artifact from a sound one on four images. What quantization costs, and the stricter INT8
# budget of 30 dB, are judged by parity on a whole data set.
FLOAT_MAX_RELATIVE_ERROR = 1e-4
INT8_MIN_SNR_DB = 10.0

_IMAGES = 4


@dataclass(frozen=True, slots=True)
class Verified:
    """How far an artifact's outputs are from its source's, worst output of all images.

    Attributes:
        max_relative_error: Largest difference over the largest value of the source's output.
        snr_db: Power of the source's output over power of the difference.
    """

    max_relative_error: float
    snr_db: float


def verification_tensors(dataset: Dataset, spec: InputSpec) -> list[Floats]:
    """Input tensors of the first readable images.

    Raises:
        DataError: None can be read.
    """
    tensors: list[Floats] = []
    for image in dataset:
        tensors.append(preprocess(image.image_bgr, spec)[0])
        if len(tensors) == _IMAGES:
            break
    if not tensors:
        raise DataError(
            "cannot verify what was exported",
            got=f"no readable image in {dataset.root}",
            expected="at least one",
            fix="point --calibration at a folder of images",
        )
    return tensors


def verify(path: Path, runtime_name: str, source: Source, tensors: Sequence[Floats]) -> Verified:
    """Open an artifact through its runtime, as a user would, and compare.

    Raises:
        VerificationError: The embedded spec is another, or outputs differ by more than rounding.
        BundleError: The runtime cannot open it, or finds other inputs and outputs than the spec's.
    """
    try:
        runtime = registry.RUNTIMES.load(runtime_name)(path, threads=1)
    except MissingExtraError as exc:
        raise MissingExtraError(
            f"cannot verify {path.name}", got=exc.got, expected="the runtime that opens it", fix=exc.fix
        ) from exc
    with runtime:
        _check_spec(path, runtime.spec, source.spec)
        pairs = []
        for tensor in tensors:
            with torch.inference_mode():
                wanted = source.graph_module(torch.from_numpy(tensor))
            given = runtime.run({source.spec.input.name: tensor})
            pairs += [
                (given[output.name], reference.numpy())
                for output, reference in zip(source.spec.outputs, wanted, strict=True)
            ]
    result = _measure(pairs)
    is_float = source.spec.quantization is None
    if is_float and not result.max_relative_error <= FLOAT_MAX_RELATIVE_ERROR:
        raise _failed(
            path,
            f"{result.max_relative_error:.2g}",
            f"a relative error of {FLOAT_MAX_RELATIVE_ERROR} at most",
        )
    if not is_float and not result.snr_db >= INT8_MIN_SNR_DB:
        raise _failed(
            path, f"{result.snr_db:.1f} dB", f"{INT8_MIN_SNR_DB} dB against the fake-quantized graph"
        )
    return result


def _measure(pairs: Sequence[tuple[Floats, Floats]]) -> Verified:
    relative, snr = 0.0, math.inf
    for given, wanted in pairs:
        if given.shape != wanted.shape or not np.isfinite(given).all():
            return Verified(math.inf, -math.inf)
        difference = given.astype(np.float64) - wanted
        noise, signal = float(np.square(difference).mean()), float(np.square(wanted, dtype=np.float64).mean())
        relative = max(relative, float(np.abs(difference).max()) / max(float(np.abs(wanted).max()), 1e-12))
        if noise > 0:
            snr = min(snr, 10 * math.log10(max(signal, 1e-300) / noise))
    return Verified(relative, snr)


def _check_spec(path: Path, found: DetectorSpec, expected: DetectorSpec) -> None:
    if found != expected:
        differing = [
            name for name in DetectorSpec.model_fields if getattr(found, name) != getattr(expected, name)
        ]
        raise VerificationError(
            f"{path.name} does not hold the spec it was exported with",
            got="another " + ", ".join(differing),
            expected="the same spec",
            fix="report this: the converter changed the embedded metadata",
        )


def _failed(path: Path, got: str, expected: str) -> VerificationError:
    return VerificationError(
        f"{path.name} does not compute what it was exported from",
        got=got,
        expected=expected,
        fix="leave this target out with --to, and report it with the versions that `edgedet doctor` prints",
    )
