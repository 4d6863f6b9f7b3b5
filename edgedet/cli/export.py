"""`edgedet export`: a checkpoint to a bundle.

The `tensorrt` target builds an engine where TensorRT and a GPU are, `tensorrt-rtx` where its extra is
installed; elsewhere they keep the ONNX that an engine is built from, and the exit code is 3 although the
bundle is written. An engine that was built and that nothing here can run is no reason for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgedet import registry
from edgedet.bundle import MANIFEST
from edgedet.cli.extras import needs_extra
from edgedet.cli.options import SplitOption, numbers_from, precisions_from, share_from, targets_from
from edgedet.cli.output import JsonOption, Output, megabytes, notice, open_output
from edgedet.cli.progress import Bars, LogOption
from edgedet.data import open_dataset
from edgedet.embedded import RANGES_KEY
from edgedet.environment import usable_cores
from edgedet.errors import CheckpointError, UsageError
from edgedet.files import check_may_become
from edgedet.selection import no_calibration
from edgedet.spec import CALIBRATED, MOST_IMAGES, PRECISIONS

if TYPE_CHECKING:
    from edgedet_calibration.recipe import Recipe
    from edgedet_calibration.stats import Stats
    from edgedet_export.accuracy_budget import AccuracyBudget
    from edgedet_export.exporter import ExportReport

TargetsOption = Annotated[
    str, typer.Option(help="Targets among " + ", ".join(registry.TARGETS) + ", with commas.")
]
PrecisionsOption = Annotated[
    str, typer.Option(help="Among " + ", ".join(PRECISIONS) + ", with commas; not every target has all.")
]
CalibrationOption = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|FILE",
        help="Images for int8 and int8-a16, as for --data, or the calibration.json of a bundle.",
    ),
]
BatchesOption = Annotated[
    str,
    typer.Option(
        "--batch",
        metavar="N,N",
        help="Images of one inference, separated by commas, 1 among them: a file for each, for benchmarks.",
    ),
]
ComputeCapabilityOption = Annotated[
    str | None,
    typer.Option(
        "--compute-capability",
        metavar="X.Y",
        help="The RTX GPU that tensorrt-rtx builds for, such as 8.6; without it, all from 8.0 on.",
    ),
]
ProcessesOption = Annotated[
    int | None,
    typer.Option(
        "--processes",
        metavar="N",
        min=1,
        max=2,
        envvar="EDGEDET_PROCESSES",
        help="2 converts beside the calibration: the default where there are two cores and three artifacts.",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        metavar="TOML", help="The detector of weights that do not describe it: as for `edgedet train`."
    ),
]
MaxDropOption = Annotated[
    str | None,
    typer.Option(
        "--max-drop",
        metavar="PERCENT",
        help="How much of the float mAP int8 may lose, such as 1%: layers stay float for it.",
    ),
]
JudgeOption = Annotated[
    str | None, typer.Option("--data", metavar="DIR", help="Labelled images that judge --max-drop.")
]
JudgeSplitOption = Annotated[
    str | None, typer.Option("--data-split", metavar="NAME", help="A split of --data, such as val.")
]

# The checkpoint is named at the head of a calibration.
_HEAD = 4096
# A file that says to have more before its tensors is no checkpoint.
_LONGEST_HEAD = 100_000_000
# One process exports so many as fast as two.
_ARTIFACTS_OF_ONE = 2


def run(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A .safetensors file of `edgedet train`; with --config, also weights in .pth or .npz.",
        ),
    ],
    output_path: Annotated[Path, typer.Option("--output", metavar="BUNDLE", help="The folder to write.")],
    to: TargetsOption = "onnx,openvino,tflite",
    precision: PrecisionsOption = "fp32",
    batch: BatchesOption = "1",
    processes: ProcessesOption = None,
    compute_capability: ComputeCapabilityOption = None,
    calibration: CalibrationOption = None,
    split: SplitOption = None,
    recipe: Annotated[Path | None, typer.Option(metavar="TOML", help="How int8 is quantized.")] = None,
    config: ConfigOption = None,
    max_drop: MaxDropOption = None,
    data: JudgeOption = None,
    data_split: JudgeSplitOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
    log: LogOption = None,
    json: JsonOption = None,
) -> None:
    """Export a checkpoint to a bundle.

    The exit code is 3 if an engine was asked for and cannot be built here; the bundle then has the ONNX that
    it is built from.
    """
    targets, precisions = targets_from(to), precisions_from(precision) or ()
    batches = numbers_from(batch, "--batch", MOST_IMAGES)
    reused = calibration is not None and _is_calibration(Path(calibration))
    with open_output(json) as output, Bars(log=log) as bars:
        # What is wrong with these is said before PyTorch is imported, which takes seconds.
        check_may_become(output_path, overwrite=overwrite, marker=MANIFEST)
        _check_checkpoint(checkpoint)
        images = None if calibration is None or reused else open_dataset(calibration, split)
        if calibration is None and CALIBRATED.intersection(precisions) and not _learned_ranges(checkpoint):
            raise no_calibration()
        with bars.step("Importing PyTorch"), needs_extra("export"):
            from edgedet.models.config import read_detector_config
            from edgedet_export.exporter import ExportRequest, export_bundle

        report = export_bundle(
            ExportRequest(
                checkpoint=checkpoint,
                output=output_path,
                targets=targets,
                precisions=precisions,
                calibration=images,
                stats=_load_stats(Path(calibration), split) if calibration is not None and reused else None,
                recipe=None if recipe is None else _load_recipe(recipe),
                overwrite=overwrite,
                config=None if config is None else read_detector_config(config),
                budget=budget_from(max_drop, data, data_split),
                batches=batches,
                processes=processes or processes_for(len(targets) * len(precisions)),
                compute_capability=compute_capability,
            ),
            bars,
        )
        show(report, output)
        if report.calibration_images:
            seen = report.coverage or f"{report.calibration_images} images"
            output.line(f"\ncalibrated on {seen}{f' (from {calibration})' if reused else ''}")
        for line in report.budget.lines() if report.budget else ():
            output.line(line)
        output.line(f"wrote {report.bundle}")
        output.json(report.model_dump(mode="json"))
    for warning in report.warnings:
        notice(f"edgedet: {warning}")
    if any(row.status == "not built" for row in report.rows):
        notice("edgedet: not everything could be made here; the table says what is missing and how to get it")
        raise typer.Exit(3)


def processes_for(artifacts: int) -> int:
    """How many processes export so many artifacts: a second one costs the import of PyTorch once more."""
    return 2 if usable_cores() > 1 and artifacts > _ARTIFACTS_OF_ONE else 1


def budget_from(max_drop: str | None, data: str | None, split: str | None) -> AccuracyBudget | None:
    """The budget that the options name; None where they name none.

    Raises:
        UsageError: One option is given without the other, or the drop is no percentage.
    """
    from edgedet_export.accuracy_budget import AccuracyBudget

    if max_drop is None and data is None and split is None:
        return None
    if max_drop is None or data is None:
        raise UsageError(
            "a budget of accuracy needs labelled images that judge it"
            if data is None
            else "there is nothing for the labelled images to judge",
            got="--max-drop without --data" if max_drop is not None else "--data without --max-drop",
            expected="both, or neither",
            fix="for example --max-drop 1% --data DIR --data-split val",
        )
    return AccuracyBudget(share_from(max_drop), open_dataset(data, split))


def _check_checkpoint(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(
            f"cannot read {path}",
            got="a folder" if path.is_dir() else "no such file",
            expected="a checkpoint",
            fix="check the path; `edgedet train` prints where it wrote its checkpoint",
        )


def _learned_ranges(checkpoint: Path) -> bool:
    """Whether the head of a checkpoint says that training learned the ranges of activations."""
    with checkpoint.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return RANGES_KEY.encode() in file.read(min(length, _LONGEST_HEAD))


def _load_recipe(path: Path) -> Recipe:
    from edgedet_calibration.recipe import Recipe

    return Recipe.load(path)


def _is_calibration(path: Path) -> bool:
    """Whether this is what an earlier export calibrated, and not the json of a data set."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b'"checkpoint_sha256"' in file.read(_HEAD)


def _load_stats(path: Path, split: str | None) -> Stats:
    from edgedet_calibration.stats import Stats

    if split is not None:
        raise UsageError(
            f"{path} has no splits",
            got=f"--split {split} beside a calibration",
            expected="--split beside a data set only",
            fix="leave --split out",
        )
    return Stats.from_json(path.read_bytes(), source=str(path))


def show(report: ExportReport, output: Output) -> None:
    """Print what was made, one line a target, precision and batch."""
    builds = any(row.build_seconds is not None for row in report.rows)
    output.table(
        ("target", "precision", "status", "file", "MB", "SNR dB", "seconds", *["build s"] * builds, "note"),
        [
            (
                row.target,
                row.precision,
                row.status,
                row.file,
                megabytes(row.bytes),
                f"{row.output_snr_db:.1f}",
                f"{row.seconds:.1f}",
                *[None if row.build_seconds is None else f"{row.build_seconds:.1f}"] * builds,
                row.note,
            )
            for row in report.rows
        ],
    )
