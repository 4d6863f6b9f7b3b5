"""`edgedet demo`: the main job on the built-in detector and data, from a checkpoint to proven artifacts.

What this machine cannot make (an engine for RTX GPUs without its builder) is said and left out, and what it
cannot run is said once; neither changes the exit code, which tells whether what was run passed.
"""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from edgedet.bench import BenchmarkReport, BenchmarkRow, run_benchmark
from edgedet.bundle import open_bundle
from edgedet.cli import export
from edgedet.cli.benchmark import SPEEDUP_NOTE, speed_cells
from edgedet.cli.detect import Pictures
from edgedet.cli.extras import needs_extra
from edgedet.cli.output import JsonOption, Output, open_output, percent
from edgedet.cli.parity import COLUMNS, cells, show_notes, verdict
from edgedet.cli.progress import Bars, LogOption
from edgedet.data import open_dataset
from edgedet.errors import CheckpointError
from edgedet.files import check_folder_writable
from edgedet.parity import ParityReport, ParityRow, run_parity
from edgedet.pipeline import load
from edgedet.report import comparison_pictures, write_report
from edgedet.spec import Precision

_TARGETS = ("onnx", "openvino", "tflite", "tensorrt-rtx")
_PARITY_IMAGES = 100
_PICTURES = 8
_BENCHMARK_S = 2.0

_PACKAGE = Path(__file__).resolve().parents[1]


def run(
    output_path: Annotated[Path, typer.Option("--output", metavar="DIR", help="The folder to write.")] = Path(
        "demo"
    ),
    log: LogOption = None,
    json: JsonOption = None,
) -> None:
    """Do the main job on built-in model and data.

    Exports to every target in fp32 and int8, compares each with PyTorch, measures their speed. The exit code
    is 1 if an artifact leaves its budget.
    """
    began = time.monotonic()
    checkpoint = find_checkpoint()
    check_folder_writable(output_path)
    with open_output(json) as output:
        output.line(f"exporting {checkpoint.stem} to {', '.join(_TARGETS)}, then comparing and measuring")
        output.line()
        with Bars(log=log or output_path / "log.txt") as bars:
            _export(checkpoint, output_path / "bundle", output, bars)
            parity, benchmark = _judge(output_path / "bundle", bars)
            with bars.step("Drawing pictures and report"):
                _draw(output_path)
                _report(output_path, parity, benchmark)
        _show(parity, benchmark, output)
        output.line()
        for name, what in (
            ("report.html", "the report"),
            ("bundle", "the artifacts"),
            ("pictures", "detections"),
        ):
            output.line(f"{what}: {output_path / name}")
        output.line(f"progress: {log or output_path / 'log.txt'}")
        output.line(f"{time.monotonic() - began:.0f} seconds")
        rows = [_record(row, speed) for row, speed in _joined(parity, benchmark)]
        output.json(
            {
                "rows": rows,
                "passed": parity.passed,
                "skipped": [one.model_dump(mode="json") for one in parity.skipped],
                "warnings": [*parity.warnings, *benchmark.warnings],
                "folder": str(output_path),
            }
        )
    if not parity.passed:
        raise typer.Exit(1)


def find_checkpoint(package: Path = _PACKAGE) -> Path:
    """The detector of the built-in classes, in `weights` of the installed package or of the checkout.

    Raises:
        CheckpointError: The installation is not complete.
    """
    for folder in (package / "weights", package.parent / "weights"):
        for path in sorted(folder.glob("shapes_*.safetensors")):
            return path
    raise CheckpointError(
        "the built-in detector is not there",
        got=f"no shapes_*.safetensors in {package / 'weights'} or {package.parent / 'weights'}",
        expected="the checkpoint that comes with edgedet",
        fix="install edgedet again, or get the whole checkout",
    )


def _export(checkpoint: Path, bundle: Path, output: Output, bars: Bars) -> None:
    with bars.step("Importing PyTorch"), needs_extra("export"):
        from edgedet_export.exporter import ExportRequest, export_bundle

    calibration = open_dataset("builtin", "train")
    precisions: tuple[Precision, ...] = ("fp32", "int8")
    request = ExportRequest(
        checkpoint,
        bundle,
        _TARGETS,
        precisions,
        calibration=calibration,
        overwrite=True,
        processes=export.processes_for(len(_TARGETS) * len(precisions)),
    )
    with bars.step("Making artifacts"):
        report = export_bundle(request, bars)
    export.show(report, output)
    output.line()


def _judge(path: Path, bars: Bars) -> tuple[ParityReport, BenchmarkReport]:
    dataset = open_dataset("builtin", "test")
    with bars.step("Proving artifacts"):
        parity = run_parity(open_bundle(path), dataset, track=bars, limit=_PARITY_IMAGES)
    with bars.step("Timing artifacts"):
        return parity, run_benchmark(path, duration_s=_BENCHMARK_S, track=bars)


def _report(folder: Path, parity: ParityReport, benchmark: BenchmarkReport) -> None:
    """The page, and what it is made of."""
    spec = open_bundle(folder / "bundle").spec
    pictures = comparison_pictures(parity, open_dataset("builtin", "test"))
    write_report(folder / "report.html", spec, parity, benchmark, pictures)
    parity.save(folder / "parity.json")
    benchmark.save(folder / "benchmark.json")


def _draw(folder: Path) -> None:
    """Detections of the int8 artifact in some test images."""
    with load(folder / "bundle", precision="int8") as pipeline:
        pictures = Pictures(folder / "pictures", pipeline.labels)
        for image in islice(open_dataset("builtin", "test"), _PICTURES):
            pictures.write(image.path, image.image_bgr, pipeline(image.image_bgr))


def _joined(parity: ParityReport, benchmark: BenchmarkReport) -> list[tuple[ParityRow, BenchmarkRow | None]]:
    speed = {(row.runtime, row.precision): row for row in benchmark.rows}
    return [(row, speed.get((row.runtime, row.precision))) for row in parity.rows]


def _record(row: ParityRow, speed: BenchmarkRow | None) -> dict[str, Any]:
    """Parity and speed of one artifact."""
    shown = {"runtime", "precision", "model_bytes", "map", "map_delta", "matched_fraction", "max_score_delta"}
    shown |= {"max_box_px", "output_snr_db", "passed", "first_stage_over_budget"}
    return {
        **row.model_dump(mode="json", include=shown),
        "total_ms_p50": speed.total_ms.p50 if speed else None,
        "speedup_vs_fp32": speed.speedup_vs_fp32 if speed else None,
    }


def _show(parity: ParityReport, benchmark: BenchmarkReport, output: Output) -> None:
    reference = parity.reference
    output.line(
        f"{parity.images} test images, {parity.boxes} boxes; PyTorch float: mAP {percent(reference.map)}, "
        f"{reference.detections} objects"
    )
    for line in parity.int8_lines:
        output.line(line)
    output.line()
    output.table(
        (*COLUMNS, "p50 ms", "x fp32", "passed"),
        [
            (*cells(row), *(speed_cells(speed) if speed else (None, None)), verdict(row))
            for row, speed in _joined(parity, benchmark)
        ],
    )
    output.line(SPEEDUP_NOTE)
    # Of what was only built, or not even that, the table of the export has said why.
    missed = tuple(one for one in parity.skipped if one.missing)
    show_notes(parity.model_copy(update={"skipped": missed}), output)
    for warning in benchmark.warnings:
        output.line(f"note: {warning}")
