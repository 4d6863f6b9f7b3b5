"""The tables of `edgedet inspect --quantization`: one for each encoding, a line for each tensor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedet import registry
from edgedet.bundle import MANIFEST, Artifact, Bundle
from edgedet.cli.output import Output
from edgedet.errors import UsageError

if TYPE_CHECKING:
    from edgedet_calibration.quantization_table import QuantizedTensor

_COLUMNS = ("tensor", "kind", "seen", "range", "scale", "zero", "channels: weight scales")


def check_whole(model: Path) -> None:
    """Refuse a lone artifact.

    Raises:
        UsageError: It is one.
    """
    if model.is_file() and model.name != MANIFEST:
        raise UsageError(
            f"{model} does not hold what was calibrated",
            got="one artifact",
            expected="the bundle that it is of, with its detector, calibration.json and recipe.toml",
            fix="give the bundle's folder to --quantization",
        )


def int8_artifacts(bundle: Bundle, chosen: tuple[str, ...] | None) -> list[Artifact]:
    """The quantized artifacts of a bundle, those of the chosen runtimes if any are.

    Raises:
        UsageError: There is none, or none of a chosen runtime.
    """
    # Scales are the same for every batch.
    artifacts = [a for a in bundle.of_batch(1) if a.quantization is not None]
    found = dict.fromkeys(_runtime(artifact) for artifact in artifacts)
    absent = [name for name in chosen or () if name not in found]
    if absent or not found:
        raise UsageError(
            f"{bundle.root} has no int8 artifact" + (f" for {', '.join(absent)}" if found else ""),
            got=", ".join(found) or "float artifacts only",
            expected="int8 for " + ", ".join(absent or ("at least one runtime",)),
            fix="choose one of those with --runtimes" if found else "export again with --precision int8",
        )
    return [artifact for artifact in artifacts if chosen is None or _runtime(artifact) in chosen]


def show_quantization(bundle: Bundle, artifacts: Sequence[Artifact], output: Output) -> list[dict[str, Any]]:
    """Print the tables; returns them as JSON, with every scale of the weights.

    Raises:
        BundleError: The artifacts were not made with the bundle's calibration and recipe.
        MissingExtraError: What rebuilds the quantized graph is not installed.
    """
    references = registry.REFERENCES.load("int8")(bundle)
    shown = []
    for artifact in artifacts:
        table = references.table(artifact)
        output.line()
        output.line(f"{artifact.files[0].path} ({_runtime(artifact)}), encoding {table.encoding}")
        output.table(_COLUMNS, [_cells(tensor) for tensor in table.tensors])
        shown.append(
            {
                "runtime": _runtime(artifact),
                "file": artifact.files[0].path,
                **table.model_dump(mode="json"),
            }
        )
    return shown


def _runtime(artifact: Artifact) -> str:
    return artifact.runtime or artifact.target


def _cells(tensor: QuantizedTensor) -> tuple[object, ...]:
    weight = tensor.weight
    return (
        tensor.name,
        tensor.kind,
        None if tensor.seen is None else _interval(tensor.seen),
        _interval(tensor.range),
        f"{tensor.scale:.4g}",
        tensor.zero_point,
        None
        if weight is None
        else f"{weight.channels}: {_interval((min(weight.scales), max(weight.scales)))}",
    )


def _interval(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.4g} … {ends[1]:.4g}"
