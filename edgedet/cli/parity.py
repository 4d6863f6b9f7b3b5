"""`edgedet parity`: does every artifact of a bundle detect what the PyTorch detector detects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgedet.bundle import open_bundle
from edgedet.cli.devices import DevicesOption, KeepOption, devices_from
from edgedet.cli.options import (
    BundleArgument,
    DataOption,
    LimitOption,
    PrecisionsOption,
    RuntimesOption,
    SplitOption,
    precisions_from,
    runtimes_from,
)
from edgedet.cli.output import JsonOption, Output, lost_images, megabytes, notice, open_output, percent
from edgedet.cli.progress import Bars
from edgedet.data import open_dataset
from edgedet.files import check_writable
from edgedet.parity import ParityReport, ParityRow, load_budgets, run_parity
from edgedet.report import comparison_pictures, write_report
from edgedet.report.page import signed_points

COLUMNS = ("runtime", "precision", "MB", "mAP", "ΔmAP", "matched %", "Δscore", "Δbox px", "SNR dB")


def run(
    bundle: BundleArgument,
    data: DataOption,
    split: SplitOption = None,
    runtimes: RuntimesOption = None,
    precisions: PrecisionsOption = None,
    limit: LimitOption = None,
    budgets: Annotated[
        Path | None, typer.Option(metavar="TOML", help="What may differ; edgedet's own if not given.")
    ] = None,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers", help="Compare the layers of all INT8, not only where raw outputs leave their budget."
        ),
    ] = False,
    device: DevicesOption = None,
    keep_on_device: KeepOption = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a report with pictures here.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Compare every artifact with PyTorch.

    Stage by stage, on real images. The exit code is 1 if an artifact leaves its budget, or if images of the
    data set are missing or cannot be read.
    """
    if html is not None:
        check_writable(html)
    with open_output(json) as output:
        with Bars() as bars:
            opened, dataset = open_bundle(bundle), open_dataset(data, split)
            report = run_parity(
                opened,
                dataset,
                runtimes_from(runtimes),
                precisions_from(precisions),
                load_budgets(budgets),
                bars,
                limit,
                layers=layers,
                devices=devices_from(device, bars, keep=keep_on_device),
            )
        show(report, output)
        if dataset.summary.problems:
            output.line(f"{report.data} has {dataset.summary}")
        if html is not None:
            write_report(html, opened.spec, report, pictures=comparison_pictures(report, dataset))
            output.line(f"wrote {html}")
        output.json(report.model_dump(mode="json"))
    if not report.passed:
        notice("edgedet: a budget was exceeded; the table names the first stage that left it")
    if lost_images(dataset) or not report.passed:
        raise typer.Exit(1)


def show(report: ParityReport, output: Output) -> None:
    """Print one line an artifact, and why those failed that did."""
    reference = report.reference
    output.line(
        f"{report.detector} on {report.data}: {report.images} images, {report.boxes} boxes; "
        f"{reference.runtime} {reference.precision} finds {reference.detections} objects, "
        f"mAP {percent(reference.map) or 'not measured'}"
    )
    output.line()
    output.table((*COLUMNS, "passed"), [(*cells(row), verdict(row)) for row in report.rows])
    show_notes(report, output)


def show_notes(report: ParityReport, output: Output) -> None:
    """Print what a reader should know before believing the verdict, why rows failed and what was left out."""
    for warning in report.warnings:
        output.line(f"note: {warning}")
    for row in report.rows:
        for reason in row.reasons:
            output.line(f"{row.runtime} {row.precision}: {reason}")
        for note in row.notes:
            output.line(f"{row.runtime} {row.precision}: {note}")
    for skipped in report.skipped:
        output.line(f"{skipped.runtime} {skipped.precision} was not compared: {skipped.reason}")


def cells(row: ParityRow) -> tuple[object, ...]:
    """What is printed of an artifact under `COLUMNS`."""
    return (
        row.runtime,
        row.precision,
        megabytes(row.model_bytes),
        percent(row.map),
        None if row.map_delta is None else signed_points(row.map_delta),
        f"{row.matched_percent:.2f}",
        f"{row.max_score_delta:.2g}",
        f"{row.max_box_px:.2g}",
        None if row.output_snr_db is None else f"{row.output_snr_db:.1f}",
    )


def verdict(row: ParityRow) -> str:
    """Whether it passed, and the first stage over its budget where not."""
    return "yes" if row.passed else f"no: {row.first_stage_over_budget}"
