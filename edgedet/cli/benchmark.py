"""`edgedet benchmark`: how long a frame takes from image to detections, every artifact in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from edgedet.bench import BenchmarkReport, BenchmarkRow, run_benchmark
from edgedet.bench.history import VARIABLE, History
from edgedet.bench.remote import run_benchmark_on
from edgedet.bench.report import SINGLE_STREAM_S
from edgedet.bundle import artifact_name
from edgedet.cli.devices import DevicesOption, KeepOption, addresses_from
from edgedet.cli.options import (
    PrecisionsOption,
    RuntimesOption,
    SplitOption,
    numbers_from,
    precisions_from,
    runtimes_from,
    seconds_from,
)
from edgedet.cli.output import JsonOption, Output, megabytes, notice, open_output
from edgedet.cli.progress import Bars, LogOption
from edgedet.cli.trend import history_from, show_trends
from edgedet.data import Dataset, open_dataset
from edgedet.devices import LOCAL, Address
from edgedet.devices.together import on_all, open_all
from edgedet.errors import UsageError
from edgedet.report.benchmark import write_benchmark
from edgedet.report.template import check_page
from edgedet.spec import MOST_IMAGES

SPEEDUP_NOTE = (
    "x fp32: time of fp32 over time of this precision, from the turns that both took; where other programs "
    "disturb, it is nearer the truth than the ratio of two p50"
)

BATCH_NOTE = (
    "times are of a whole batch, fps of images; x batch 1: images a second over those of one image at a "
    "time, from the turns that both took"
)

_QUICK_S = 5.0
_COLD_STARTS = 3

_SUSTAINED_COLUMNS = (
    *("runtime", "precision", "threads", "window s", "first p50", "last p50", "last / first"),
    *("first fps", "last fps"),
)
_COLD_COLUMNS = (
    *("cold start", "precision", "threads", "python", "import", "open", "first inference", "first frame"),
    "total ms",
)


_Model = Annotated[
    Path | None, typer.Argument(metavar="BUNDLE|FILE", help="A bundle, or one artifact with its spec inside.")
]
_Data = Annotated[
    str | None, typer.Option(metavar="DIR", help="Images to detect in; built-in ones if not given.")
]
_Batches = Annotated[
    str | None,
    typer.Option(
        "--batch",
        metavar="N,N",
        help="Images of one inference, separated by commas: a row for each. 1 if not given; the bundle must "
        "have been exported with them.",
    ),
]
_Duration = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Measured time for each artifact and number of threads, such as 90, 90s, 30m or 2h: 60 "
        "seconds if not given. From there on, at least 1,024 frames.",
    ),
]
_Sustained = Annotated[
    bool, typer.Option("--sustained", help="One artifact after another; minute 1 against the last one.")
]
_Twice = Annotated[
    bool | None,
    typer.Option(
        "--aa/--no-aa", help="Measure one artifact as two to see the noise; by default from 60 s on."
    ),
]
_AllowFallback = Annotated[
    bool, typer.Option("--allow-fallback", help="Only warn of INT8 that ran in float or elsewhere.")
]
_Html = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write a page with curves over time here.")
]
_History = Annotated[
    Path | None, typer.Option("--history", metavar="FILE", help=f"Keep results there; or {VARIABLE}.")
]
_Compare = Annotated[
    bool, typer.Option("--compare", help="Measure nothing; show the results that were kept.")
]


def run(
    model: _Model = None,
    data: _Data = None,
    split: SplitOption = None,
    runtimes: RuntimesOption = None,
    precisions: PrecisionsOption = None,
    threads: Annotated[str, typer.Option(help="Numbers of CPU threads, separated by commas.")] = "1",
    batch: _Batches = None,
    duration: _Duration = None,
    quick: Annotated[bool, typer.Option("--quick", help="5 seconds each, for a first look.")] = False,
    sustained: _Sustained = False,
    aa: _Twice = None,
    allow_fallback: _AllowFallback = False,
    device: DevicesOption = None,
    keep_on_device: KeepOption = False,
    html: _Html = None,
    history: _History = None,
    no_history: Annotated[bool, typer.Option("--no-history", help="Keep nothing.")] = False,
    compare: _Compare = False,
    log: LogOption = None,
    json: JsonOption = None,
) -> None:
    """Measure how long a frame takes, or a batch of them.

    Each artifact takes its turns for 60 seconds and 1,024 frames. The exit code is 1 where INT8 ran in float,
    or not where it was meant to.
    """
    with open_output(json) as output:
        if compare:
            show_trends(model, history, output)
            return
        if model is None:
            raise _no_model()
        if html is not None:
            check_page(html)
        seconds = _seconds(duration, quick=quick)
        kept = None if no_history else history_from(history)
        is_long = seconds >= SINGLE_STREAM_S
        addresses = addresses_from(device)
        if html is not None and len(addresses) > 1:
            raise _one_page(len(addresses))
        options: dict[str, Any] = {
            "runtimes": runtimes_from(runtimes),
            "precisions": precisions_from(precisions),
            "threads": numbers_from(threads, "--threads"),
            "batches": None if batch is None else numbers_from(batch, "--batch", MOST_IMAGES),
            "duration_s": seconds,
            "sustained": sustained,
            "noise": (is_long if aa is None else aa) and not sustained,
            "cold_starts": _COLD_STARTS if is_long else 1,
        }
        with Bars(log=log) as bars:
            dataset = None if data is None else open_dataset(data, split)
            found = _measure(
                model, addresses, dataset, options, bars, partial(_keep, kept), stay=keep_on_device
            )
        reports = [one for one in found if isinstance(one, BenchmarkReport)]
        for report in reports:
            show(report, output)
        values = [report.model_dump(mode="json") for report in reports]
        if reports:
            output.json(values[0] if len(addresses) == 1 else {"reports": values})
        if reports and html is not None:
            write_benchmark(html, reports[0])
            output.line(f"wrote {html}")
        failures = [one for one in found if isinstance(one, Exception)]
        for failure in failures[1:]:
            notice(f"edgedet: {failure}")
        if failures:
            raise failures[0]
    fallen = [report for report in reports if report.fallbacks]
    if fallen and not allow_fallback:
        for report in fallen:
            notice(_fallback_notice(report))
        raise typer.Exit(1)


def _measure(
    model: Path,
    addresses: Sequence[Address],
    dataset: Dataset | None,
    options: Mapping[str, Any],
    bars: Bars,
    keep: Callable[[BenchmarkReport], None],
    *,
    stay: bool,
) -> list[BenchmarkReport | Exception]:
    """A report a device, or why there is none; each is kept as soon as it is there.

    This machine is measured when it sends nothing any more.
    """

    def kept(report: BenchmarkReport) -> BenchmarkReport:
        keep(report)
        return report

    with ExitStack() as stack:
        remote = [address for address in addresses if address.transport != LOCAL]
        devices = open_all(remote, stack, stay=stay, tell=bars.say)
        found = on_all(
            devices,
            lambda device: kept(
                run_benchmark_on(device, model, dataset=dataset, track=bars, announce=bars.say, **options)
            ),
        )
    by_address: dict[Address, BenchmarkReport | Exception] = dict(zip(remote, found, strict=True))
    for address in addresses:
        if address.transport == LOCAL:
            try:
                by_address[address] = kept(
                    run_benchmark(model, dataset=dataset, track=bars, announce=bars.say, **options)
                )
            except Exception as exc:  # of this machine, which is no reason to lose what others measured
                by_address[address] = exc
    return [by_address[address] for address in addresses]


def _one_page(devices: int) -> UsageError:
    return UsageError(
        "a page shows one device",
        got=f"--html and {devices} devices",
        expected="--html with one --device",
        fix="measure each by itself, or leave --html out",
    )


def _no_model() -> UsageError:
    return UsageError(
        "there is nothing to measure",
        got="no bundle",
        expected="a bundle, a file, or --compare",
        fix="`edgedet benchmark BUNDLE`, or `edgedet benchmark --compare` for what was measured before",
    )


def _seconds(duration: str | None, *, quick: bool) -> float:
    if duration is not None and quick:
        raise UsageError(
            "cannot measure quickly and for that long",
            got=f"--quick and --duration {duration}",
            expected="one of them",
            fix=f"leave one out; --quick is --duration {_QUICK_S:g}",
        )
    if duration is not None:
        return seconds_from(duration)
    return _QUICK_S if quick else SINGLE_STREAM_S


def _keep(history: History | None, report: BenchmarkReport) -> None:
    """A measurement of minutes is shown even where it can no longer be kept."""
    if history is None:
        return
    try:
        history.append(report)
    except UsageError as exc:
        notice(f"edgedet: {exc}")


def _fallback_notice(report: BenchmarkReport) -> str:
    names = dict.fromkeys(artifact_name(row.runtime, row.precision, row.batch) for row in report.fallbacks)
    return (
        f"edgedet: {', '.join(names)} did not run as meant, see above: its times are not those of INT8. "
        "Fix: `edgedet inspect --executed` lists the operators; --allow-fallback makes this a warning"
    )


def speed_cells(row: BenchmarkRow) -> tuple[str, str | None]:
    """Median milliseconds of a frame, and the speed-up over fp32."""
    speedup = row.speedup_vs_fp32
    return f"{row.total_ms.p50:.2f}", None if speedup is None else f"{speedup:.2f}"


def show(report: BenchmarkReport, output: Output) -> None:
    """Print one line an artifact, batch and number of threads; times in milliseconds."""
    machine = report.environment
    devices = [device for device in dict.fromkeys(row.device for row in report.rows) if device != LOCAL]
    where = "".join(f"{device}: " for device in devices)
    output.line(
        f"{report.detector} on {report.images}; {where}{machine.cpu}, {machine.cores} cores, {machine.os}"
    )
    if machine.int8:
        output.line(machine.int8)
    if report.scenario is not None:
        output.line(str(report.scenario))
    output.line()
    is_swept = any(row.batch > 1 for row in report.rows)
    output.table(_columns(is_swept), [_cells(row, is_swept) for row in report.rows])
    if any(row.speedup_vs_fp32 is not None for row in report.rows):
        output.line(SPEEDUP_NOTE)
    if is_swept:
        output.line(BATCH_NOTE)
    if report.noise is not None:
        output.line(str(report.noise))
    _show_others(report.rows, output)
    for warning in report.warnings:
        output.line(f"note: {warning}")
    for skipped in report.skipped:
        output.line(f"{skipped.runtime} {skipped.precision} was not measured: {skipped.reason}")


def _columns(is_swept: bool) -> tuple[str, ...]:
    return (
        *("runtime", "precision", "threads", *(("batch",) if is_swept else ())),
        *("pre", "inference", "post", "p50", "p90", "p99", "fps"),
        *(("x batch 1", "95 % of it") if is_swept else ()),
        *("x fp32", "95 %", "int8 ops %", "RSS MB", "MB"),
    )


def _cells(row: BenchmarkRow, is_swept: bool) -> tuple[object, ...]:
    interval, gain, of_gain = row.speedup_interval, row.gain_over_batch_1, row.gain_interval
    gains = (
        None if gain is None else f"{gain:.2f}",
        None if of_gain is None else f"{of_gain[0]:.2f}..{of_gain[1]:.2f}",
    )
    return (
        row.runtime,
        row.precision,
        row.threads,
        *((row.batch,) if is_swept else ()),
        f"{row.preprocess_ms:.2f}",
        f"{row.inference_ms:.2f}",
        f"{row.postprocess_ms:.2f}",
        speed_cells(row)[0],
        f"{row.total_ms.p90:.2f}",
        f"{row.total_ms.p99:.2f}",
        f"{row.fps:.1f}",
        *(gains if is_swept else ()),
        speed_cells(row)[1],
        None if interval is None else f"{interval[0]:.2f}..{interval[1]:.2f}",
        None if row.integer_share is None else f"{100 * row.integer_share:.1f}",
        None if row.peak_rss_mb is None else f"{row.peak_rss_mb:.0f}",
        megabytes(row.model_bytes),
    )


def _show_others(rows: Sequence[BenchmarkRow], output: Output) -> None:
    """Tables of what is not measured always: sustained speed, cold starts, energy."""
    sustained = [(row, row.sustained) for row in rows if row.sustained is not None]
    if sustained:
        output.line()
        output.table(
            _SUSTAINED_COLUMNS,
            [
                (
                    *_name(row),
                    f"{one.window_s:g}",
                    f"{one.first_p50_ms:.2f}",
                    f"{one.last_p50_ms:.2f}",
                    f"{one.ratio:.3f}",
                    f"{one.first_fps:.1f}",
                    f"{one.last_fps:.1f}",
                )
                for row, one in sustained
            ],
        )
    cold = [(row, row.cold_start) for row in rows if row.cold_start is not None]
    if cold:
        output.line()
        output.table(
            _COLD_COLUMNS,
            [
                (
                    *_name(row),
                    f"{one.interpreter_ms:.0f}",
                    f"{one.import_ms:.0f}",
                    f"{one.open_ms:.0f}",
                    f"{one.first_inference_ms:.1f}",
                    f"{one.first_frame_ms:.1f}",
                    f"{one.total_ms:.0f}",
                )
                for row, one in cold
            ],
        )
    energy = [row for row in rows if row.joules_per_frame is not None]
    if energy:
        output.line()
        output.table(
            ("energy", "precision", "threads", "mJ a frame", "from"),
            [(*_name(row), f"{1e3 * (row.joules_per_frame or 0):.1f}", row.energy_source) for row in energy],
        )


def _name(row: BenchmarkRow) -> tuple[str, str, int]:
    return artifact_name(row.runtime, None, row.batch), row.precision, row.threads
