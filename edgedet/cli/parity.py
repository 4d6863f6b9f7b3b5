"""`edgedet parity`: does every artifact of a bundle detect what the PyTorch detector detects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from edgedet.bundle import open_bundle
from edgedet.cli.devices import DevicesOption, KeepOption, devices_from
from edgedet.cli.extras import needs_extra
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
from edgedet.cli.output import (
    JsonOption,
    MarkdownOption,
    Output,
    lost_images,
    megabytes,
    notice,
    open_output,
    percent,
)
from edgedet.cli.progress import Bars, LogOption
from edgedet.data import open_dataset
from edgedet.errors import DataError, MissingError, UsageError
from edgedet.parity import (
    Devices,
    ParityReport,
    ParityRow,
    compare_with_baseline,
    load_budgets,
    run_parity,
)
from edgedet.parity.regression import check_same_detector, check_same_images
from edgedet.parity.run import data_name
from edgedet.recommend import RecommendationReport
from edgedet.report import (
    Plot,
    comparison_pictures,
    markdown_of,
    pareto_plot,
    sensitivity_plot,
    write_report,
)
from edgedet.report.template import check_page
from edgedet.report.wording import signed_points

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
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What an earlier `edgedet parity --json` wrote, to compare with."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a report with pictures and plots here.")
    ] = None,
    sensitivity: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What `edgedet sensitivity --json` wrote, to plot in --html."),
    ] = None,
    recommendation: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What `edgedet recommend --json` wrote, to plot in --html."),
    ] = None,
    markdown: MarkdownOption = None,
    log: LogOption = None,
    json: JsonOption = None,
) -> None:
    """Compare every artifact with PyTorch.

    Stage by stage, on real images. The exit code is 1 if an artifact leaves its budget, if it is worse than
    in --baseline by more than [baseline] of --budgets allows, or if images of the data set are missing or
    cannot be read. It is 3 if all that was compared is well, and the runtime of an artifact is not installed.
    """
    if html is not None:
        check_page(html)
    with open_output(json, markdown) as output:
        limits, names, kinds = load_budgets(budgets), runtimes_from(runtimes), precisions_from(precisions)
        earlier = None if baseline is None else ParityReport.load(baseline)
        with Bars(log=log) as bars:
            opened, dataset = open_bundle(bundle), open_dataset(data, split)
            if earlier is not None:
                check_same_detector(opened.spec.name, opened.spec.labels, earlier)
                check_same_images(data_name(dataset), min(len(dataset), limit or len(dataset)), earlier)
            plots = tuple(_plots(html, opened.spec.name, sensitivity, recommendation))
            devices = devices_from(device, bars, keep=keep_on_device)
            report = run_parity(
                opened, dataset, names, kinds, limits, bars, limit, layers=layers, devices=devices
            )
        report, incomparable = _compared(report, earlier, names, kinds, devices)
        show(report, output)
        if dataset.summary.problems:
            output.line(f"{report.data} has {dataset.summary}")
        output.json(report.model_dump(mode="json"))
        output.markdown(markdown_of(report))
        if html is not None:
            pictures = comparison_pictures(report, dataset)
            write_report(html, opened.spec, report, pictures=pictures, plots=plots)
            output.line(f"wrote {html}")
    if incomparable is not None:  # which is no reason to lose what was measured
        raise incomparable
    _end(report, lost=lost_images(dataset))


def _compared(
    report: ParityReport,
    earlier: ParityReport | None,
    runtimes: Sequence[str] | None,
    precisions: Sequence[str] | None,
    devices: Devices,
) -> tuple[ParityReport, DataError | None]:
    """The report with what became of an earlier one, or why it could not be held against that."""
    if earlier is None:
        return report, None
    try:
        addresses = [str(one) for one in devices.addresses]
        compared = compare_with_baseline(report, earlier, runtimes, precisions, addresses)
    except DataError as exc:
        return report, exc
    return report.model_copy(update={"baseline": compared}), None


def _end(report: ParityReport, *, lost: bool) -> None:
    """Say on standard error what failed or is missing, and end with 1 or 3 where something did or is."""
    worse = report.baseline is not None and not report.baseline.passed
    if not report.passed:
        notice("edgedet: a budget was exceeded; the table names the first stage that left it")
    if worse:
        notice("edgedet: worse than in the baseline by more than is allowed")
    if lost or worse or not report.passed:
        raise typer.Exit(1)
    missing = [f"{one.runtime} {one.precision}" for one in report.skipped if one.missing]
    if missing:
        notice(
            f"edgedet: not compared: {', '.join(dict.fromkeys(missing))}; install what they need, or name "
            "the other runtimes with --runtimes"
        )
        raise typer.Exit(MissingError.exit_code)


def _plots(
    html: Path | None, detector: str, sensitivity: Path | None, recommendation: Path | None
) -> Iterator[Plot]:
    """What the page shows of other commands' reports, read before any work is done."""
    options = {"--sensitivity": sensitivity, "--recommendation": recommendation}
    given = [name for name, path in options.items() if path is not None]
    if given and html is None:
        raise UsageError(
            "there is no page to plot in",
            got=" and ".join(given),
            expected="--html FILE beside it",
            fix=f"add --html, or leave {' and '.join(given)} out",
        )
    if sensitivity is not None:
        with needs_extra("export"):
            from edgedet_calibration.sensitivity import SensitivityReport
        yield sensitivity_plot(SensitivityReport.load(sensitivity))
    if recommendation is not None:
        found = RecommendationReport.load(recommendation)
        if found.detector != detector:
            raise UsageError(
                f"{recommendation} does not belong to this bundle",
                got=f"a recommendation for {found.detector}",
                expected=f"one for {detector}",
                fix="run `edgedet recommend BUNDLE --json FILE` for this bundle",
            )
        yield pareto_plot(found.recommendation)


def show(report: ParityReport, output: Output) -> None:
    """Print one line an artifact, and why those failed that did."""
    reference = report.reference
    output.line(
        f"{report.detector} on {report.data}: {report.images} images, {report.boxes} boxes; "
        f"{reference.runtime} {reference.precision} finds {reference.detections} objects, "
        f"mAP {percent(reference.map) or 'not measured'}"
    )
    for line in report.int8_lines:
        output.line(line)
    output.line()
    devices = ("device",) if report.devices else ()
    output.table(
        (*devices, *COLUMNS, "passed"),
        [(*([row.device] if devices else []), *cells(row), verdict(row)) for row in report.rows],
    )
    show_notes(report, output)


def show_notes(report: ParityReport, output: Output) -> None:
    """Print what a reader should know before believing the verdict, why rows failed and what was left out."""
    for warning in report.warnings:
        output.line(f"note: {warning}")
    for row in report.rows:
        for reason in row.reasons:
            output.line(f"{row.name}: {reason}")
        for note in row.notes:
            output.line(f"{row.name}: {note}")
    reasons: dict[str, list[str]] = {}
    for left_out in report.not_compared:
        reasons.setdefault(left_out.reason, []).append(left_out.name)
    for reason, names in reasons.items():
        output.line(f"{', '.join(names)} {'were' if len(names) > 1 else 'was'} not compared: {reason}")
    show_baseline(report, output)


def show_baseline(report: ParityReport, output: Output) -> None:
    """Print what changed since the baseline, if there is one."""
    found = report.baseline
    if found is None:
        return
    output.line()
    output.line("against the baseline:")
    output.table(
        (*(("device",) if report.devices else ()), "runtime", "precision", "mAP", "matched %", "SNR dB"),
        [
            (
                *([one.device] if report.devices else []),
                one.runtime,
                one.precision,
                None if one.map_change is None else signed_points(one.map_change),
                None if one.matched_fraction_change is None else signed_points(one.matched_fraction_change),
                None if one.snr_change_db is None else f"{one.snr_change_db:+.1f}",
            )
            for one in found.rows
        ],
    )
    for line in (*found.differences, *(f"not in the baseline: {name}" for name in found.new)):
        output.line(f"note: {line}")
    for one in found.regressions:
        output.line(f"{one.name} at {one.stage}: {one.reason}")


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
