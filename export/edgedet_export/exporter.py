"""A checkpoint to a bundle: capture once, calibrate once, write every target, verify each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from edgedet import registry
from edgedet.bundle import MANIFEST, Artifact, FileEntry, Manifest
from edgedet.data import open_dataset
from edgedet.data.coverage import Coverage
from edgedet.evaluate import evaluate
from edgedet.files import staged_directory, write_atomically
from edgedet.models.checkpoint import load_checkpoint, save_checkpoint
from edgedet.models.threads import one_thread
from edgedet.pipeline import Pipeline
from edgedet.progress import Track, silent
from edgedet.spec import CALIBRATED
from edgedet_export.accuracy_budget import BudgetReport
from edgedet_export.beside import Beside, beside
from edgedet_export.half import check_fits_half
from edgedet_export.int8 import CALIBRATION, RECIPE, calibrated
from edgedet_export.quiet import converter
from edgedet_export.report import ExportReport, ExportRow
from edgedet_export.request import ExportRequest, check_request
from edgedet_export.sources import Sources, captured_checkpoint
from edgedet_export.target import Target
from edgedet_export.targets import load_targets
from edgedet_export.verify import verification_tensors
from edgedet_export.writer import Job, Writer, Written

__all__ = ["EAGER", "ExportReport", "ExportRequest", "ExportRow", "export_bundle"]

EAGER = "model.safetensors"


@one_thread()
def export_bundle(request: ExportRequest, track: Track = silent) -> ExportReport:
    """Export a checkpoint to every target and precision asked for, or to none.

    Raises:
        UsageError: A name does not exist, a target lacks a precision, there are no images to calibrate on, or
            the output exists.
        CheckpointError: The checkpoint cannot be loaded, or computes what is no number, or none of float16.
        CheckError: A budget of accuracy does not hold in INT8.
        VerificationError: An artifact does not compute what its source does, for each image of a batch, or
            sums of a pair-safe one can overflow.
        VendorError: A converter failed.
    """
    with converter("the converters' own import"):
        targets = load_targets(request.targets, request.compute_capability)
    check_request(request, targets)
    with staged_directory(request.output, overwrite=request.overwrite, marker=MANIFEST) as folder:
        sources = Sources(captured_checkpoint(request.checkpoint, request.config))
        images = request.calibration or open_dataset("builtin", split="test")
        tensors = verification_tensors(images, sources.captured.spec.input, max(request.batches))
        sources.check_finite(tensors[0])
        if "fp16" in request.precisions:
            check_fits_half(sources.captured.graph_module, tensors)
        writer = Writer(sources, tensors, folder, request.batches)
        written, budget, warnings = _written(request, writer, targets, track)
        if budget is not None:
            budget = _judged(request, budget, folder, written, track)
        artifacts = (_eager(request, folder), *(one for job in written for one in job.artifacts))
        manifest = _manifest(sources, artifacts, folder)
        write_atomically(folder / MANIFEST, manifest.model_dump_json(indent=1))
    report = _report(request, sources, budget, written)
    return report.model_copy(update={"warnings": (*report.warnings, *warnings)})


def _written(
    request: ExportRequest, writer: Writer, targets: Mapping[str, Target], track: Track
) -> tuple[list[Written], BudgetReport | None, tuple[str, ...]]:
    """Everything that was asked for, in that order, what a budget of accuracy took, and warnings."""
    pairs = [(name, precision) for precision in dict.fromkeys(request.precisions) for name in targets]
    jobs = [Job(target=name, precision=precision) for name, precision in pairs]
    early = [job for job in jobs if job.precision not in CALIBRATED]
    late = [job for job in jobs if job.precision in CALIBRATED]
    budget = None
    with ExitStack() as stack:
        side = None
        if request.processes > 1 and len(jobs) > 1:
            side = stack.enter_context(beside(request, writer.tensors, writer.folder, early))
        if late:
            captured, folder = writer.sources.captured, writer.folder
            writer.sources.quantization, budget = calibrated(
                request, captured, tuple(targets.values()), folder, track
            )
        shared = (
            _in_one_process(writer, targets, jobs, track)
            if side is None
            else _in_two_processes(writer, targets, side, late, track)
        )
        found = list(track(shared, "Exporting", len(jobs)))
    assert len(found) == len(jobs), "every job was done once"
    order = {(job.target, job.precision): place for place, job in enumerate(jobs)}
    found.sort(key=lambda one: order[one.rows[0].target, one.rows[0].precision])
    left = side.given_back if side else 0
    warnings = (
        (f"the second process ended early: {left} of its artifacts were made by this one",) if left else ()
    )
    return found, budget, warnings


def _in_one_process(
    writer: Writer, targets: Mapping[str, Target], jobs: Sequence[Job], track: Track
) -> Iterator[Written]:
    for job in jobs:
        yield _tracked(writer, targets, job, track)


def _in_two_processes(
    writer: Writer, targets: Mapping[str, Target], side: Beside, late: Sequence[Job], track: Track
) -> Iterator[Written]:
    """What both processes write, as it comes."""
    side.add(late)
    while True:
        if (there := side.written(wait=False)) is not None:
            yield there
        elif (job := side.take()) is not None:
            yield _tracked(writer, targets, job, track)
        elif (there := side.written(wait=True)) is not None:
            yield there
        elif (job := side.take()) is not None:  # given back
            yield _tracked(writer, targets, job, track)
        else:
            return


def _tracked(writer: Writer, targets: Mapping[str, Target], job: Job, track: Track) -> Written:
    for one in track((job,), f"{job.target} {job.precision}", 1):
        written = writer.write(one, targets[one.target])
    return written


def _eager(request: ExportRequest, folder: Path) -> Artifact:
    """The checkpoint itself, for PyTorch: the reference of every comparison."""
    path = folder / "fp32" / EAGER
    path.parent.mkdir(exist_ok=True)
    if request.config is None:
        shutil.copyfile(request.checkpoint, path)
    else:  # the copy in the bundle describes its detector, whatever was given
        save_checkpoint(path, load_checkpoint(request.checkpoint, request.config))
    return Artifact(target="torch", precision="fp32", runtime="eager", files=(FileEntry.of(folder, path),))


def _judged(
    request: ExportRequest, budget: BudgetReport, folder: Path, written: Sequence[Written], track: Track
) -> BudgetReport:
    """The budget's report with the mAP of each artifact that runs here.

    Raises:
        CheckError: One of them does not hold it.
    """
    assert request.budget is not None
    for artifact in (one for job in written for one in job.artifacts):
        if artifact.precision in CALIBRATED and artifact.batch == 1 and not artifact.verified_by:
            path = folder / artifact.files[0].path
            with registry.RUNTIMES.load(artifact.runtime)(path) as opened:
                report = evaluate(Pipeline(opened), request.budget.dataset, track)
            budget = budget.with_artifact(f"{artifact.target} {artifact.precision}", report.map or 0.0)
    return budget


def _manifest(sources: Sources, artifacts: Sequence[Artifact], folder: Path) -> Manifest:
    extras = [path for name in (CALIBRATION, RECIPE) if (path := folder / name).exists()]
    spec = sources.captured.spec
    return Manifest(
        spec=spec,
        artifacts=tuple(artifacts),
        files=tuple(FileEntry.of(folder, path) for path in extras),
        tools=spec.provenance.tools,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _report(
    request: ExportRequest, sources: Sources, budget: BudgetReport | None, written: Sequence[Written]
) -> ExportReport:
    rows = tuple(row for job in written for row in job.rows)
    if sources.quantization is None:
        return ExportReport(bundle=str(request.output), calibration_images=0, rows=rows)
    stats = sources.quantization.stats
    coverage = stats.coverage
    warnings = (coverage or Coverage(images=len(stats.images))).warnings
    if stats.ranges:
        warnings = ()
        if request.calibration is not None:
            warnings = (
                "the ranges are those that training learned; the images of --calibration only verified them",
            )
    if request.calibration and (left_out := request.calibration.summary.record().left_out):
        warnings = (*warnings, f"left out of --calibration: {left_out}")
    return ExportReport(
        bundle=str(request.output),
        calibration_images=len(stats.images),
        budget=budget,
        rows=rows,
        coverage=coverage,
        warnings=(*warnings, *(warning for job in written for warning in job.warnings)),
    )
