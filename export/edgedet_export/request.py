"""What is to be exported, and why it cannot be, said before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgedet.data import Dataset
from edgedet.errors import UsageError
from edgedet.models.checkpoint import read_ranges
from edgedet.selection import no_calibration
from edgedet.spec import CALIBRATED, MOST_IMAGES, Precision
from edgedet_export.accuracy_budget import AccuracyBudget
from edgedet_export.target import Target

if TYPE_CHECKING:
    from edgedet.models.config import DetectorConfig
    from edgedet_calibration.recipe import Recipe
    from edgedet_calibration.stats import Stats


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export.

    Attributes:
        checkpoint: A self-describing .safetensors file, or weights of the detector that `config` describes.
        output: The bundle's folder, which becomes visible when everything in it has been verified.
        targets: Names of `edgedet.registry.TARGETS`.
        precisions: Names of `edgedet.spec.PRECISIONS`; each target must have each.
        calibration: Images for int8 and int8-a16; a checkpoint of quantization-aware training needs none.
        stats: What was collected for them before, instead of images.
        recipe: How to quantize; the default one if not given.
        overwrite: Replace a bundle that is there.
        config: The detector, for a file of weights that does not describe it.
        budget: How much mAP INT8 may lose; layers stay float for it.
        batches: Images of one inference; of each artifact one for each of them. 1 is always among them.
        processes: 2 has a second process convert while this one calibrates, and take its share of what then
            follows; it costs the import of PyTorch once more, and memory.
        compute_capability: The one that engines for RTX GPUs are built for; None for portable ones.
    """

    checkpoint: Path
    output: Path
    targets: tuple[str, ...]
    precisions: tuple[Precision, ...]
    calibration: Dataset | None = None
    recipe: Recipe | None = None
    overwrite: bool = False
    config: DetectorConfig | None = None
    stats: Stats | None = None
    budget: AccuracyBudget | None = None
    batches: tuple[int, ...] = (1,)
    processes: int = 1
    compute_capability: str | None = None


def check_request(request: ExportRequest, targets: Mapping[str, Target]) -> None:
    """Refuse what cannot be exported.

    Raises:
        UsageError: There is nothing to export, a target lacks a precision, or images to calibrate on are
            missing.
    """
    if not targets or not request.precisions:
        raise UsageError(
            "there is nothing to export",
            got=f"{len(targets)} targets, {len(request.precisions)} precisions",
            expected="at least one of each",
            fix="--to onnx --precision fp32",
        )
    _check_batches(request.batches)
    for name, target in targets.items():
        missing = [precision for precision in request.precisions if precision not in target.precisions]
        if missing:
            raise UsageError(
                f"the target {name} has no {', '.join(missing)}",
                got=", ".join(request.precisions),
                expected=", ".join(target.precisions),
                fix=_without_missing_pairs(request, targets),
            )
    if request.calibration is not None and request.stats is not None:
        raise UsageError(
            "INT8 is calibrated once",
            got="images and statistics that were collected before",
            expected="one of them",
            fix="leave one of them out",
        )
    has_ranges = request.stats is not None or read_ranges(request.checkpoint) is not None
    if CALIBRATED.intersection(request.precisions) and request.calibration is None and not has_ranges:
        raise no_calibration()
    if request.stats is not None and request.budget is not None:
        raise UsageError(
            "a budget of accuracy needs images to calibrate on",
            got="--max-drop with statistics that were collected before",
            expected="images: biases are corrected anew for every set of layers that is tried",
            fix="--calibration DIR, or leave --max-drop out",
        )
    if "int8" not in request.precisions and request.budget is not None:
        raise UsageError(
            "a budget of accuracy is for INT8",
            got="--max-drop without int8",
            expected="int8 among the precisions",
            fix="--precision fp32,int8, or leave --max-drop out",
        )


def _check_batches(batches: Sequence[int]) -> None:
    legal = {batch for batch in batches if 1 <= batch <= MOST_IMAGES}
    if 1 not in legal or len(legal) < len(set(batches)):
        raise UsageError(
            "cannot export these batches",
            got=", ".join(map(str, batches)) or "none",
            expected=f"numbers of images from 1 to {MOST_IMAGES}, and 1 among them: detection, parity and "
            "everything else but a benchmark look at one image at a time",
            fix=f"--batch {','.join(map(str, sorted({1, *legal})))}",
        )


def _without_missing_pairs(request: ExportRequest, targets: Mapping[str, Target]) -> str:
    """What can be asked for instead: for all targets at once, and for the others in bundles of their own."""
    shared = [p for p in request.precisions if all(p in target.precisions for target in targets.values())]
    fixes = [f"--precision {','.join(shared)} for all of these targets"] if shared else []
    for precision in request.precisions:
        able = [name for name, target in targets.items() if precision in target.precisions]
        if able and precision not in shared:
            fixes.append(
                f"a bundle of its own for {precision}: --to {','.join(able)} --precision {precision}"
            )
    return "; or ".join(fixes) or "choose some of those with --precision"
