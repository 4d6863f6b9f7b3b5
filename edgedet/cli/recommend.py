"""`edgedet recommend`: which artifact of a bundle to ship, and whether quantizing pays."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgedet.cli.options import (
    BundleArgument,
    DataOption,
    RuntimesOption,
    SplitOption,
    runtimes_from,
    share_from,
)
from edgedet.cli.output import JsonOption, Output, megabytes, open_output, percent
from edgedet.cli.progress import Bars, LogOption
from edgedet.data import open_dataset
from edgedet.recommend import Figures, RecommendationReport, run_recommendation
from edgedet.report import write_recommendation
from edgedet.report.template import check_page


def run(
    bundle: BundleArgument,
    data: DataOption,
    split: SplitOption = None,
    max_drop: Annotated[
        str, typer.Option(metavar="SHARE", help="Part of the float mAP that may be lost, such as 1% or 0.01.")
    ] = "1%",
    runtimes: RuntimesOption = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")] = 1,
    duration: Annotated[float, typer.Option(min=0.1, help="Seconds for each artifact.")] = 10.0,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write a page with a plot here.")
    ] = None,
    log: LogOption = None,
    json: JsonOption = None,
) -> None:
    """Say which artifact to ship.

    Measures latency, mAP and size of every artifact on this machine. INT8 that is slower than float, or loses
    more than --max-drop, gets a plain no. The exit code is 0 whatever is recommended.
    """
    if report is not None:
        check_page(report)
    with open_output(json) as output:
        with Bars(log=log) as bars:
            found = run_recommendation(
                bundle,
                open_dataset(data, split),
                share_from(max_drop),
                runtimes_from(runtimes),
                threads,
                duration,
                bars,
            )
        show(found, output)
        if report is not None:
            write_recommendation(report, found)
            output.line(f"wrote {report}")
        output.json(found.model_dump(mode="json"))


def show(report: RecommendationReport, output: Output) -> None:
    """Print one line an artifact, one sentence a runtime and what to ship."""
    machine = report.benchmark.environment
    output.line(
        f"{report.detector} on {report.images} images of {report.data}; {machine.cpu}, {machine.cores} cores"
    )
    if machine.int8:
        output.line(machine.int8)
    output.line()
    output.table(
        ("runtime", "precision", "p50 ms", "time / fp32", "95 %", "mAP", "mAP lost %", "MB", "optimal"),
        [cells(row) for row in report.recommendation.rows],
    )
    output.line()
    for advice in report.recommendation.advice:
        output.line(advice.sentence)
    output.line()
    output.line(report.recommendation.sentence)
    for warning in report.benchmark.warnings:
        output.line(f"note: {warning}")
    for skipped in report.benchmark.skipped:
        output.line(f"{skipped.runtime} {skipped.precision} was not measured: {skipped.reason}")


def cells(row: Figures) -> tuple[object, ...]:
    """What is printed of an artifact."""
    interval = row.ratio_interval
    return (
        row.runtime,
        row.precision,
        f"{row.latency_ms:.2f}",
        None if row.latency_ratio is None else f"{row.latency_ratio:.2f}",
        None if interval is None else f"{interval[0]:.2f}..{interval[1]:.2f}",
        percent(row.map),
        percent(row.map_drop),
        megabytes(row.model_bytes),
        "yes" if row.optimal else "no",
    )
