"""Open what was written again and hold it against what it was written from, on real images.

What no run here may show, sums that overflow on another processor, is proved from the integers of the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from edgedet import registry
from edgedet.boxes import Floats
from edgedet.data import Dataset, open_dataset
from edgedet.errors import DataError, MissingError, MissingExtraError, VerificationError
from edgedet.parity.compare import ERROR_LIMIT, OutputComparison
from edgedet.parity.report import OutputDifference
from edgedet.preprocess import preprocess
from edgedet.proof import prove
from edgedet.saturation import PAIR_LIMIT
from edgedet.spec import DetectorSpec, InputSpec, Precision
from edgedet_export.target import Exported, Source

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

# How many times nearer the outputs of an image must be to those of another one in its batch to be said to be
# those of that: far above what rounding does, and far below what another image does.
_NEARER = 4.0

_NAMED_LAYERS = 3

Outputs = Mapping[str, Floats]

_REPORT = "leave this target out with --to, and report it with the versions that `edgedet doctor` prints"


@dataclass(frozen=True, slots=True)
class Verified:
    """How far an artifact's outputs are from its source's, measured as parity does: the worst output.

    Attributes:
        max_relative_error: As in `OutputDifference`.
        snr_db: As in `OutputDifference`.
        stood_in: The runtime that ran the artifact's stand-in, "" where the artifact itself was run.
        lacks: Why its own runtime could not run what was built.
    """

    max_relative_error: float
    snr_db: float
    stood_in: str = ""
    lacks: MissingError | None = None


def verification_tensors(dataset: Dataset, spec: InputSpec, batch: int = 1) -> list[Floats]:
    """Input tensors of the first readable images, each of one image and no two of them alike.

    Args:
        dataset: Where images are; where they are fewer than a batch has, built-in ones go on.
        spec: The input.
        batch: The largest batch that is verified with them.

    Raises:
        DataError: None can be read.
    """
    tensors: dict[bytes, Floats] = {}
    _add_different(tensors, dataset, spec, max(_IMAGES, batch))
    if not tensors:
        raise DataError(
            "cannot verify what was exported",
            got=f"no readable image in {dataset.root}",
            expected="at least one",
            fix="point --calibration at a folder of images",
        )
    if len(tensors) < batch:
        _add_different(tensors, open_dataset("builtin"), spec, batch)
    return list(tensors.values())


def _add_different(tensors: dict[bytes, Floats], dataset: Dataset, spec: InputSpec, count: int) -> None:
    """Add tensors, by their hash, until there are so many or no image is left."""
    for image in dataset:
        tensor = preprocess(image.image_bgr, spec)[0]
        tensors.setdefault(hashlib.sha256(tensor.data).digest(), tensor)
        if len(tensors) >= count:
            return


def verify_exported(
    exported: Exported, runtime: str, source: Source, tensors: Sequence[Floats], batch: int = 1
) -> Verified:
    """Verify what a target wrote, through its runtime or, where this machine lacks that, as ONNX.

    What TensorRT cannot build or open here, ONNX Runtime can: the same graph, its other half.

    Args:
        exported: What was written.
        runtime: The target's.
        source: As for `verify`.
        tensors: As for `verify`.
        batch: As for `verify`.

    Raises:
        VerificationError, BundleError: As `verify`.
        MissingError: There is no stand-in for what cannot be run here.
    """
    if exported.missing is not None:
        return replace(verify(exported.files[0], "ort", source, tensors, batch), stood_in="ort")
    try:
        return verify(exported.files[0], runtime, source, tensors, batch)
    except MissingError as exc:
        if exported.stand_in is None:
            raise
        verified = verify(exported.stand_in, "ort", source, tensors, batch)
        return replace(verified, stood_in="ort", lacks=exc)


def verify(
    path: Path, runtime_name: str, source: Source, tensors: Sequence[Floats], batch: int = 1
) -> Verified:
    """Open an artifact through its runtime, as a user would, and compare.

    Args:
        path: The artifact.
        runtime_name: What opens it.
        source: What it was made from, for one image.
        tensors: Input tensors of one image each, all different; at least `batch`.
        batch: How many of them the artifact takes at once. Each is held against the source by itself.

    Raises:
        VerificationError: The embedded spec is another, outputs differ by more than rounding, or those of an
            image are those of another one in its batch.
        BundleError: The runtime cannot open it, or finds other inputs and outputs than the spec's.
    """
    try:
        runtime = registry.RUNTIMES.load(runtime_name)(path, threads=1)
    except MissingExtraError as exc:
        raise MissingExtraError(
            f"cannot verify {path.name}", got=exc.got, expected="the runtime that opens it", fix=exc.fix
        ) from exc
    spec = source.spec.with_batch(batch)
    references = [_reference(source, tensor) for tensor in tensors]
    places = [OutputComparison([output.name for output in spec.outputs]) for _ in range(batch)]
    with runtime:
        _check_spec(path, runtime.spec, spec)
        for start in range(0, len(tensors), batch):
            indices = [(start + place) % len(tensors) for place in range(batch)]
            found = runtime.run({spec.input.name: np.concatenate([tensors[index] for index in indices])})
            own = [
                {name: array[place : place + 1] for name, array in found.items()} for place in range(batch)
            ]
            for place, index in enumerate(indices):
                places[place].add(references[index], own[place])
            _check_apart(path, own, [references[index] for index in indices], spec)
    differences = [(place, one) for place, compared in enumerate(places) for one in compared.differences()]
    for place, output in differences:
        _check_output(path, output, spec, place)
    return Verified(
        max(output.max_relative_error for _, output in differences),
        min(output.snr_db for _, output in differences),
    )


def check_sums(path: Path, runtime_name: str, spec: DetectorSpec) -> str:
    """Prove from its integers that no sum of an INT8 artifact can overflow on x86 processors without VNNI.

    Args:
        path: The artifact.
        runtime_name: What opens it.
        spec: What it was exported with; its quantization says whether it is meant to be pair-safe.

    Returns:
        A warning where sums can overflow and nothing else was promised, or "".

    Raises:
        VerificationError: They can, or weights cannot be read, in an artifact that is meant to be pair-safe.
    """
    proof = None if spec.quantization is None else prove(runtime_name, path)
    if spec.quantization is None or proof is None or proof.is_exact:
        return ""
    name = _name(path, spec)
    if spec.quantization.pair_safe:
        raise VerificationError(
            f"{name} is not exact on every x86 processor",
            got="; ".join(proof.reasons[:_NAMED_LAYERS]),
            expected=f"|w1| + |w2| of {PAIR_LIMIT} at most, for neighbouring weights of one sign",
            fix=_REPORT,
        )
    named = proof.overflowing or ", ".join(proof.unread[:_NAMED_LAYERS])
    return (
        f"{name} loses accuracy on x86 processors without VNNI: {proof.verdict} there ({named}); "
        "a pair-safe recipe or a new training in 8 bits mends it, `edgedet inspect` names the layers"
    )


def _reference(source: Source, tensor: Floats) -> Outputs:
    """What the source gives for one image."""
    with torch.inference_mode():
        wanted = source.graph_module(torch.from_numpy(tensor))
    return {output.name: values.numpy() for output, values in zip(source.spec.outputs, wanted, strict=True)}


def _check_apart(
    path: Path, found: Sequence[Outputs], references: Sequence[Outputs], spec: DetectorSpec
) -> None:
    """Refuse a batch in which one image has the outputs of another.

    Class logits are mostly those of background: two images of blood cells are within 11 dB of each other,
    which the limit of INT8 lets pass.
    """
    for place, outputs in enumerate(found):
        for name, values in outputs.items():
            noise = [float(np.square(reference[name] - values).sum()) for reference in references]
            nearest = int(np.argmin(noise))
            if noise[nearest] * _NEARER < noise[place]:
                raise VerificationError(
                    f"{_name(path, spec)} does not keep the images of a batch apart",
                    got=f"{name} of image {place + 1} nearest to that of image {nearest + 1}",
                    expected="the outputs of each image in its place",
                    fix=_REPORT,
                )


def _name(path: Path, spec: DetectorSpec) -> str:
    """As it is called in its bundle."""
    parent = f"{spec.precision}/batch{spec.input.batch}" if spec.input.batch > 1 else spec.precision
    return f"{parent}/{path.name}"


def _check_output(path: Path, output: OutputDifference, spec: DetectorSpec, place: int) -> None:
    name, what = _name(path, spec), output.name
    if spec.input.batch > 1:
        what = f"{what} of image {place + 1} in a batch of {spec.input.batch}"
    if output.max_relative_error >= ERROR_LIMIT:
        raise VerificationError(
            f"{name} does not compute what it was exported from",
            got=f"{what} with another shape, or values that are not finite",
            expected="the shape of the spec and finite values",
            fix=_REPORT,
        )
    if spec.precision == "fp32" and output.max_relative_error > FLOAT_MAX_RELATIVE_ERROR:
        raise VerificationError(
            f"{name} does not compute what it was exported from",
            got=f"{what} with a relative error of {output.max_relative_error:.2g}",
            expected=f"{FLOAT_MAX_RELATIVE_ERROR:g} at most",
            fix=_REPORT,
        )
    limit = MIN_SNR_DB.get(spec.precision)
    if limit is not None and output.snr_db < limit:
        graph = "float graph" if spec.quantization is None else "fake-quantized graph"
        raise VerificationError(
            f"{name} is too far from the {graph} that it was exported from",
            got=f"{what} with {output.snr_db:.1f} dB signal to noise",
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
