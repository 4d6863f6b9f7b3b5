"""What differs: plots of how far detections move, average precision by class, verdicts by device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgedet.parity.budgets import Budget
from edgedet.parity.distributions import Distributions
from edgedet.parity.report import ParityReport, ParityRow
from edgedet.report.charts import Chart, Series, histogram_chart
from edgedet.report.wording import NOTHING, signed_points

# A difference of AP that is printed as 0.00.
_INVISIBLE = 0.00005

# The longest bar of the table stands for this at least, in points: noise does not look like a loss.
_LEAST_POINTS = 1.0


@dataclass(frozen=True, slots=True)
class ArtifactCharts:
    """How far the detections of one artifact are from its reference's."""

    name: str
    sentence: str
    charts: tuple[Chart, ...]
    unfolded: bool


@dataclass(frozen=True, slots=True)
class ClassCell:
    """A difference of AP; its bar goes left or right of the middle, in percent of the half."""

    text: str
    below: float
    above: float
    bad: bool


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Average precision by class: that of the float detector, and what each artifact adds to it."""

    artifacts: tuple[str, ...]
    rows: tuple[tuple[str, str, str, tuple[ClassCell, ...]], ...]
    note: str


def artifact_charts(parity: ParityReport) -> tuple[ArtifactCharts, ...]:
    """One set of plots an artifact; that which differs most is unfolded."""
    rows = [row for row in parity.rows if row.distributions is not None and row.images]
    shown = max(
        rows, key=lambda row: (not row.passed, row.lost + row.gained, row.max_score_delta), default=None
    )
    return tuple(
        ArtifactCharts(
            name=row.name,
            sentence=_sentence(row, row.distributions),
            charts=_charts(row.distributions, parity.budgets.of(row.precision), parity.score_threshold),
            unfolded=row is shown,
        )
        for row in rows
        if row.distributions is not None
    )


def _sentence(row: ParityRow, found: Distributions) -> str:
    mean = (
        ""
        if found.mean_score_delta is None
        else f", whose scores differ by {found.mean_score_delta:+.2g} on average"
    )
    alone = f"{row.lost} lost, {row.gained} gained, {row.excused} on one side only at the threshold"
    return f"{row.matched} pairs{mean}; {alone}"


def _charts(found: Distributions, budget: Budget, threshold: float) -> tuple[Chart, ...]:
    pairs = "pairs"
    charts = [
        histogram_chart(
            "Difference of score of each pair",
            [Series(pairs, "c0", found.score_delta)],
            "difference of score",
            (0, 1e-6, 1e-4, 1e-2, 1),
            limit=budget.max_score_delta,
        ),
        histogram_chart(
            "Shift of the box of each pair",
            [Series(pairs, "c0", found.box_px)],
            "largest shift of a coordinate, px",
            (0, 1e-4, 1e-2, 1, 100),
            limit=budget.max_box_px,
        ),
        histogram_chart(
            "IoU of each pair",
            [Series(pairs, "c0", found.iou)],
            "IoU of the two boxes",
            (0, 0.2, 0.4, 0.6, 0.8, 1),
            first=0.5,
            limit=budget.matched_iou,
            limit_name="the same from",
        ),
    ]
    alone = (
        Series("lost", "lost", found.lost_scores),
        Series("gained", "gained", found.gained_scores),
        Series("at the threshold", "at", found.excused_scores),
    )
    if any(one.histogram.total for one in alone):
        charts.append(
            histogram_chart(
                "Scores of what has no partner",
                alone,
                "score",
                (0, 0.2, 0.4, 0.6, 0.8, 1),
                y_label="detections",
                first=max(0.0, threshold - 0.1),
                limit=threshold,
                limit_name="threshold",
            )
        )
    return tuple(charts)


def class_table(parity: ParityReport) -> ClassTable | None:
    """AP by class; None where there are no labelled boxes."""
    rows = [row for row in parity.rows if any(one.ap_delta is not None for one in row.classes)]
    moved = [row for row in rows if any(abs(one.ap_delta or 0) >= _INVISIBLE for one in row.classes)]
    if not rows:
        return None
    deltas = [abs(100 * (one.ap_delta or 0)) for row in moved for one in row.classes]
    widest = max([*deltas, _LEAST_POINTS])
    alike = [row.name for row in rows if row not in moved]
    return ClassTable(
        artifacts=tuple(row.name for row in moved),
        rows=tuple(
            (
                one.label,
                NOTHING if one.reference_ap is None else f"{100 * one.reference_ap:.2f}",
                str(one.boxes),
                tuple(_cell(row, index, widest) for row in moved),
            )
            for index, one in enumerate(rows[0].classes)
        ),
        note=f"The same to two digits in every class: {', '.join(alike)}." if alike else "",
    )


def _cell(row: ParityRow, index: int, widest: float) -> ClassCell:
    one = row.classes[index]
    if one.ap_delta is None:
        return ClassCell(NOTHING, 0.0, 0.0, bad=False)
    width = round(100 * abs(100 * one.ap_delta) / widest, 1)
    bad = any(reason.startswith(f"class {one.label}: ") for reason in row.reasons)
    below, above = (width, 0.0) if one.ap_delta < 0 else (0.0, width)
    return ClassCell(signed_points(one.ap_delta), below, above, bad)


@dataclass(frozen=True, slots=True)
class DeviceCell:
    """One artifact on one device; `state` is "good", "bad" or "" where it was not compared there."""

    text: str
    state: str


@dataclass(frozen=True, slots=True)
class DeviceGrid:
    """Artifacts by devices."""

    devices: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[DeviceCell, ...]], ...]


def device_grid(rows: Sequence[ParityRow]) -> DeviceGrid | None:
    """The verdicts of every artifact on every device; None where there is one device."""
    devices = tuple(dict.fromkeys(row.device for row in rows))
    if len(devices) < 2:
        return None
    found = {(row.runtime, row.precision, row.device): row for row in rows}
    artifacts = dict.fromkeys((row.runtime, row.precision) for row in rows)
    return DeviceGrid(
        devices=devices,
        rows=tuple(
            (
                runtime,
                precision,
                tuple(_device_cell(found.get((runtime, precision, name))) for name in devices),
            )
            for runtime, precision in artifacts
        ),
    )


def _device_cell(row: ParityRow | None) -> DeviceCell:
    if row is None:
        return DeviceCell("not compared", "")
    if not row.passed:
        return DeviceCell(f"fails at {row.first_stage_over_budget}", "bad")
    change = "" if row.map_delta is None else f", {signed_points(row.map_delta)} mAP"
    return DeviceCell(f"{row.matched_percent:.2f} %{change}", "good")
