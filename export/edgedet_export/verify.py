"""Open what was written again and hold it against what it was written from, on real images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from edgedet import registry
from edgedet.boxes import Floats
from edgedet.data import Dataset
from edgedet.errors import DataError, MissingExtraError, VerificationError
from edgedet.parity.compare import ERROR_LIMIT, OutputComparison
from edgedet.parity.report import OutputDifference
from edgedet.preprocess import preprocess
from edgedet.spec import DetectorSpec, InputSpec, Precision
from edgedet_export.target import Source

# These tell a broken artifact from a sound one on four images. What quantization costs, and the stricter
# budgets, are judged by parity on a whole data set.
FLOAT_MAX_RELATIVE_ERROR = 1e-4
INT8_MIN_SNR_DB = 10.0
MIN_SNR_DB: Mapping[Precision, float] = {
    "fp16": 40.0,
    "int8": INT8_MIN_SNR_DB,
    "int8-a16": 30.0,
    "int8-dynamic": INT8_MIN_SNR_DB,
}

_IMAGES = 4

_REPORT = "leave this target out with --to, and report it with the versions that `edgedet doctor` prints"


@dataclass(frozen=True, slots=True)
class Verified:
    """How far an artifact's outputs are from its source's, measured as parity does: the worst output.

    Attributes:
        max_relative_error: As in `OutputDifference`.
        snr_db: As in `OutputDifference`.
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
        comparison = OutputComparison([output.name for output in source.spec.outputs])
        for tensor in tensors:
            with torch.inference_mode():
                wanted = source.graph_module(torch.from_numpy(tensor))
            references = {o.name: t.numpy() for o, t in zip(source.spec.outputs, wanted, strict=True)}
            comparison.add(references, runtime.run({source.spec.input.name: tensor}))
    for output in comparison.differences():
        _check_output(path, output, source.spec)
    return Verified(
        max(output.max_relative_error for output in comparison.differences()),
        min(output.snr_db for output in comparison.differences()),
    )


def _check_output(path: Path, output: OutputDifference, spec: DetectorSpec) -> None:
    name = f"{spec.precision}/{path.name}"
    if output.max_relative_error >= ERROR_LIMIT:
        raise VerificationError(
            f"{name} does not compute what it was exported from",
            got=f"{output.name} with another shape, or values that are not finite",
            expected="the shape of the spec and finite values",
            fix=_REPORT,
        )
    if spec.precision == "fp32" and output.max_relative_error > FLOAT_MAX_RELATIVE_ERROR:
        raise VerificationError(
            f"{name} does not compute what it was exported from",
            got=f"{output.name} with a relative error of {output.max_relative_error:.2g}",
            expected=f"{FLOAT_MAX_RELATIVE_ERROR:g} at most",
            fix=_REPORT,
        )
    limit = MIN_SNR_DB.get(spec.precision)
    if limit is not None and output.snr_db < limit:
        graph = "float graph" if spec.quantization is None else "fake-quantized graph"
        raise VerificationError(
            f"{name} is too far from the {graph} that it was exported from",
            got=f"{output.name} with {output.snr_db:.1f} dB signal to noise",
            expected=f"{limit:g} dB at least",
            fix=("" if spec.quantization is None else "calibrate on images like those it was trained on, ")
            + f"train a detector that has learned little for longer, or leave {spec.precision} out",
        )


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
