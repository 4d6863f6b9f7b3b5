"""`edgedet benchmark --compare`: what was measured before, run by run."""

from __future__ import annotations

import os
from pathlib import Path

from edgedet.bench.contenders import find_contenders
from edgedet.bench.history import History, default_path
from edgedet.bench.trend import Change, Step, Trend, trends_of
from edgedet.bundle import artifact_name
from edgedet.cli.output import Output, notice
from edgedet.errors import UsageError

_ARROWS = {"slower": " ↑", "faster": " ↓", "noise": ""}


def history_from(path: Path | None) -> History | None:
    """The history that is written to: a file that was named, or that of the user.

    Where the user has no folder that can be written, as in many containers, there is none and a line says so.

    Raises:
        UsageError: The file is not a history, is damaged, or was named and cannot be made.
    """
    chosen = path or default_path()
    if path is None and not chosen.exists() and not _can_be_made(chosen):
        notice(f"edgedet: {chosen} cannot be made, so this run is not kept; --history names another place")
        return None
    return History(chosen)


def _can_be_made(path: Path) -> bool:
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


def show_trends(model: Path | None, path: Path | None, output: Output) -> None:
    """Print one table for each artifact and device, of one detector or of all.

    Raises:
        UsageError: There is no history, or it cannot be read.
        BundleError: The bundle cannot be read.
    """
    chosen = path or default_path()
    if not chosen.is_file():
        raise UsageError(
            "there is nothing to compare",
            got=f"no file {chosen}",
            expected="a file that `edgedet benchmark` made",
            fix="run `edgedet benchmark BUNDLE` first, or name the file with --history",
        )
    entries = History(chosen).entries()
    if model is not None:
        spec, _, _ = find_contenders(model, None, None, ())
        entries = [entry for entry in entries if entry.detector == spec.name]
    trends = trends_of(entries)
    for trend in trends:
        _show(trend, output)
    if not trends:
        output.line(f"{chosen} holds nothing" + ("" if model is None else " of this detector"))
    elif any(len(trend.steps) > 1 for trend in trends):
        output.line(
            "↑ slower, ↓ faster, both beyond the noise of the two runs; a change without arrow is noise, or "
            "of a run with one process and without --aa, whose noise is not known"
        )
    output.json({"history": str(chosen), "trends": [trend.model_dump(mode="json") for trend in trends]})


def _show(trend: Trend, output: Output) -> None:
    threads = f"{trend.threads} thread{'s' * (trend.threads > 1)}"
    name = artifact_name(trend.runtime, trend.precision, trend.batch)
    output.line(f"{trend.detector} {name}, {threads}  {trend.sparkline}")
    # A single stream is of one image at a time: for batches it only says beside what they were measured.
    scenario = f"in a {trend.scenario} run" if trend.scenario and trend.batch > 1 else trend.scenario
    how = "; ".join(filter(None, (f"{trend.cpu}, {trend.cores} cores", trend.images, scenario)))
    output.line(f"{trend.device}: {how}")
    output.table(
        ("date", "p50 ms", "p90", "since last", "since first", "x fp32", "changed"),
        [_cells(step) for step in trend.steps],
    )
    output.line()


def _cells(step: Step) -> tuple[object, ...]:
    entry = step.entry
    return (
        entry.started.replace("T", " ").removesuffix("+00:00"),
        f"{entry.p50_ms:.2f}",
        f"{entry.p90_ms:.2f}",
        _change(step.since_previous),
        _change(step.since_first),
        None if entry.ratio is None else f"{entry.ratio:.2f}",
        ", ".join(step.changed) or None,
    )


def _change(change: Change | None) -> str | None:
    return None if change is None else f"{100 * change.share:+.1f} %{_ARROWS[change.verdict]}"
