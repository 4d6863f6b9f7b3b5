"""`edgedet benchmark`: how long a frame takes from image to detections, every artifact in turns."""

from __future__ import annotations

from typing import Annotated

import typer

from edgedet.bench import BenchmarkReport, BenchmarkRow, run_benchmark
from edgedet.cli.options import (
    ModelArgument,
    PrecisionsOption,
    RuntimesOption,
    SplitOption,
    numbers_from,
    precisions_from,
    runtimes_from,
)
from edgedet.cli.output import JsonOption, Output, megabytes, open_output
from edgedet.cli.progress import Bars
from edgedet.data import open_dataset

SPEEDUP_NOTE = (
    "x fp32: time of fp32 over time of this precision, the median over the turns that both took; where other "
    "programs disturb, it is nearer the truth than the ratio of two p50"
)


def run(
    model: ModelArgument,
    data: Annotated[
        str | None, typer.Option(metavar="DIR", help="Images to detect in; built-in ones if not given.")
    ] = None,
    split: SplitOption = None,
    runtimes: RuntimesOption = None,
    precisions: PrecisionsOption = None,
    threads: Annotated[str, typer.Option(help="Numbers of CPU threads, separated by commas.")] = "1",
    duration: Annotated[
        float, typer.Option(min=0.1, help="Seconds for each artifact and number of threads.")
    ] = 5.0,
    json: JsonOption = None,
) -> None:
    """Measure how long a frame takes."""
    with open_output(json) as output:
        with Bars() as bars:
            report = run_benchmark(
                model,
                runtimes_from(runtimes),
                precisions_from(precisions),
                numbers_from(threads, "--threads"),
                None if data is None else open_dataset(data, split),
                duration,
                bars,
            )
        show(report, output)
        output.json(report.model_dump(mode="json"))


def speed_cells(row: BenchmarkRow) -> tuple[str, str | None]:
    """Median milliseconds of a frame, and the speed-up over fp32."""
    speedup = row.speedup_vs_fp32
    return f"{row.total_ms.p50:.2f}", None if speedup is None else f"{speedup:.2f}"


def show(report: BenchmarkReport, output: Output) -> None:
    """Print one line an artifact and number of threads; times in milliseconds."""
    machine = report.environment
    output.line(f"{report.detector} on {report.images}; {machine.cpu}, {machine.cores} cores, {machine.os}")
    output.line()
    columns = ("runtime", "precision", "threads", "pre", "inference", "post", "p50", "p90", "p99", "fps")
    output.table(
        (*columns, "x fp32", "int8 ops %", "RSS MB", "MB"),
        [
            (
                row.runtime,
                row.precision,
                row.threads,
                f"{row.preprocess_ms:.2f}",
                f"{row.inference_ms:.2f}",
                f"{row.postprocess_ms:.2f}",
                speed_cells(row)[0],
                f"{row.total_ms.p90:.2f}",
                f"{row.total_ms.p99:.2f}",
                f"{row.fps:.1f}",
                speed_cells(row)[1],
                None if row.integer_share is None else f"{100 * row.integer_share:.1f}",
                None if row.peak_rss_mb is None else f"{row.peak_rss_mb:.0f}",
                megabytes(row.model_bytes),
            )
            for row in report.rows
        ],
    )
    if any(row.speedup_vs_fp32 is not None for row in report.rows):
        output.line(SPEEDUP_NOTE)
    for warning in report.warnings:
        output.line(f"note: {warning}")
    for skipped in report.skipped:
        output.line(f"{skipped.runtime} {skipped.precision} was not measured: {skipped.reason}")
