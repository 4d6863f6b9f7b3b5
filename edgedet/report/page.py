"""Reports to the words and numbers of the page: choosing and rounding are here, the template places it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgedet.bench.report import BenchmarkReport, BenchmarkRow
from edgedet.environment import Environment
from edgedet.parity.budgets import EVERY_CLASS, Budgets, ClassBudget
from edgedet.parity.report import ClassParity, ImageParity, OutputDifference, ParityReport, ParityRow
from edgedet.report.differences import (
    ArtifactCharts,
    ClassTable,
    DeviceGrid,
    artifact_charts,
    class_table,
    device_grid,
)
from edgedet.report.pictures import Picture, looks_different
from edgedet.report.plots import Plot
from edgedet.report.wording import NOTHING, decibels, megabytes, milliseconds, points, signed_points
from edgedet.selection import FLOAT
from edgedet.spec import PRECISIONS, DetectorSpec

_Key = tuple[str, str, str]  # runtime, precision, device

# Images that differ, of each artifact; the JSON has more of them.
_IMAGES = 10


@dataclass(frozen=True, slots=True)
class Cell:
    """One number with its name; `state` is "good", "bad" or ""."""

    name: str
    text: str
    state: str = ""


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    """One artifact: its line in the matrix and what unfolds below it."""

    runtime: str
    precision: str
    name: str
    device: str
    passed: bool
    verdict: str
    cells: tuple[Cell, ...]
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    outputs: tuple[OutputDifference, ...]
    classes: tuple[ClassParity, ...]
    images: tuple[ImageParity, ...]
    more_images: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the chart of times; widths are percent of the widest bar."""

    name: str
    total: str
    note: str
    widths: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture."""

    title: str
    caption: str
    source: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Page:
    """Everything that the template places."""

    title: str
    passed: bool
    verdict: str
    summary: tuple[str, ...]
    facts: tuple[Cell, ...]
    grid: DeviceGrid | None
    artifacts: tuple[ArtifactRow, ...]
    baseline: tuple[tuple[str, ...], tuple[str, ...]] | None
    class_table: ClassTable | None
    charts: tuple[ArtifactCharts, ...]
    plots: tuple[Plot, ...]
    skipped: tuple[tuple[str, str], ...]
    bars: tuple[Bar, ...]
    bars_note: str
    cautions: tuple[str, ...]
    warnings: tuple[str, ...]
    pictures: tuple[Shown, ...]
    pictures_note: str
    budget_columns: tuple[str, ...]
    budget_rows: tuple[tuple[str, tuple[str, ...]], ...]
    provenance: tuple[tuple[str, str], ...]


def page_of(
    spec: DetectorSpec,
    parity: ParityReport,
    benchmark: BenchmarkReport | None,
    pictures: Sequence[Picture],
    plots: Sequence[Plot] = (),
) -> Page:
    """The page of a parity report, with the times of a benchmark and further plots where there are any."""
    timed = _fewest_threads(benchmark)
    elsewhere = any(row.device != "local" for row in parity.rows)
    return Page(
        title=parity.detector,
        passed=parity.passed and (parity.baseline is None or parity.baseline.passed),
        verdict=verdict_of(parity),
        summary=_summary(parity, timed),
        facts=_facts(spec, parity),
        grid=device_grid(parity.rows),
        artifacts=tuple(
            _artifact(
                row, timed.get((row.runtime, row.precision, row.device)), row.device if elsewhere else ""
            )
            for row in parity.rows
        ),
        baseline=_baseline(parity),
        class_table=class_table(parity),
        charts=artifact_charts(parity),
        plots=tuple(plots),
        skipped=tuple((one.name, one.reason) for one in parity.not_compared),
        bars=_bars(_on_devices(benchmark)) if benchmark else (),
        bars_note=_pytorch_note(benchmark) if benchmark else "",
        cautions=parity.warnings,
        warnings=benchmark.warnings if benchmark else (),
        pictures=tuple(_shown(picture) for picture in pictures),
        pictures_note=_pictures_note(parity),
        budget_columns=PRECISIONS,
        budget_rows=_budget_rows(parity.budgets),
        provenance=_provenance(spec, parity, benchmark),
    )


def verdict_of(parity: ParityReport) -> str:
    """What was found, as one sentence without a full stop."""
    total, failed = len(parity.rows), sum(not row.passed for row in parity.rows)
    things = ("artifact" if total == 1 else "artifacts") + (
        " that could be compared" if parity.skipped else ""
    )
    worse = 0 if parity.baseline is None else len(parity.baseline.regressions)
    figures = (
        f"{worse} figure{'s are' if worse > 1 else ' is'} worse than in the baseline by more than is allowed"
    )
    if not failed:
        who = f"The {things} detects" if total == 1 else f"All {total} {things} detect"
        within = f"{who} what PyTorch detects, within budget"
        return f"{within}, but {figures}" if worse else within
    outside = f"{failed} of {total} {things} {'is' if failed == 1 else 'are'} outside the budget"
    return f"{outside}, and {figures}" if worse else outside


def _baseline(parity: ParityReport) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """What became worse and what else differs; None where there was no baseline."""
    found = parity.baseline
    if found is None:
        return None
    worse = tuple(f"{one.name} at {one.stage}: {one.reason}" for one in found.regressions)
    new = (f"not in the baseline: {', '.join(found.new)}",) if found.new else ()
    return worse, (*found.differences, *new)


def _summary(parity: ParityReport, timed: dict[_Key, BenchmarkRow]) -> tuple[str, ...]:
    images = f"{parity.images} image{'s' * (parity.images != 1)}"
    lines = [
        f"Compared stage by stage on {images} of {parity.data}, where the float detector finds "
        f"{parity.reference.detections} objects."
    ]
    passing = [
        (timed[row.runtime, row.precision, row.device], row)
        for row in parity.rows
        if row.passed and (row.runtime, row.precision, row.device) in timed
    ]
    if passing:
        best, row = min(passing, key=lambda pair: pair[0].total_ms.p50)
        gain = best.speedup_vs_fp32
        times = "" if gain is None or row.precision == "fp32" else f", {gain:.2f} × as fast as its fp32"
        lines.append(
            f"Fastest within its budget on this machine: {row.runtime} {row.precision}, "
            f"{milliseconds(best.total_ms.p50)} a frame{times}, {megabytes(row.model_bytes)}."
        )
    return tuple(lines)


def _facts(spec: DetectorSpec, parity: ParityReport) -> tuple[Cell, ...]:
    height, width = spec.input.size_hw
    return (
        Cell("float mAP", points(parity.reference.map)),
        Cell("float mAP at IoU 0.5", points(parity.reference.map50)),
        Cell("images", str(parity.images)),
        Cell("labelled boxes", str(parity.boxes)),
        Cell("classes", str(len(spec.labels))),
        Cell("input", f"{width} × {height}"),
    )


def _artifact(row: ParityRow, timed: BenchmarkRow | None, device: str) -> ArtifactRow:
    cells = [
        Cell("size", megabytes(row.model_bytes)),
        Cell("mAP", points(row.map)),
        Cell(
            "Δ mAP",
            NOTHING if row.map_delta is None else signed_points(row.map_delta),
            _state(row, "mAP", "mAP across runtimes"),
        ),
        Cell("matched", f"{row.matched_percent:.2f} %", _state(row, "detections")),
        Cell("lost / gained", f"{row.lost} / {row.gained}"),
        Cell("Δ box", f"{row.max_box_px:.3g} px"),
        Cell("Δ score", f"{row.max_score_delta:.2g}"),
        Cell("raw SNR", decibels(row.output_snr_db), _state(row, "raw outputs")),
    ]
    if timed is not None:
        slower = timed.speedup_vs_fp32 is not None and timed.speedup_vs_fp32 < 1
        speedup = NOTHING if timed.speedup_vs_fp32 is None else f"{timed.speedup_vs_fp32:.2f} ×"
        cells += [
            Cell("p50", milliseconds(timed.total_ms.p50)),
            Cell("vs fp32", speedup, "bad" if slower and row.precision != "fp32" else ""),
        ]
    return ArtifactRow(
        runtime=row.runtime,
        precision=row.precision,
        name=row.name,
        device=device,
        passed=row.passed,
        verdict="within budget" if row.passed else f"fails at {row.first_stage_over_budget}",
        cells=tuple(cells),
        reasons=row.reasons,
        notes=row.notes,
        outputs=row.outputs,
        classes=row.classes,
        images=row.differing_images[:_IMAGES],
        more_images=len(row.differing_images[_IMAGES:]) + row.differing_images_left_out,
        sha256=row.model_sha256,
    )


def _state(row: ParityRow, *stages: str) -> str:
    return "" if set(stages).isdisjoint(row.stages_over_budget) else "bad"


def _fewest_threads(benchmark: BenchmarkReport | None) -> dict[_Key, BenchmarkRow]:
    """One row an artifact for the matrix: that with the fewest threads."""
    rows = sorted(benchmark.rows if benchmark else (), key=lambda row: -row.threads)
    return {(row.runtime, row.precision, row.device): row for row in rows}


def _on_devices(benchmark: BenchmarkReport) -> Sequence[BenchmarkRow]:
    """The rows of the chart: PyTorch, several times as slow, would leave no room to tell the others apart."""
    return [row for row in benchmark.rows if row.runtime != FLOAT] or benchmark.rows


def _pytorch_note(benchmark: BenchmarkReport) -> str:
    rows = [row for row in benchmark.rows if row.runtime == FLOAT]
    if not rows or len(rows) == len(benchmark.rows):
        return ""
    return "PyTorch, the reference, takes " + ", ".join(
        f"{milliseconds(row.total_ms.p50)} with {_threads(row)}" for row in rows
    )


def _threads(row: BenchmarkRow) -> str:
    return f"{row.threads} thread{'s' * (row.threads != 1)}"


def _bars(rows: Sequence[BenchmarkRow]) -> tuple[Bar, ...]:
    widest = max((row.total_ms.p50 for row in rows), default=1.0)
    return tuple(
        Bar(
            name=f"{row.runtime} {row.precision}, {_threads(row)}",
            total=milliseconds(row.total_ms.p50),
            note=_bar_note(row),
            widths=_widths(row, widest),
        )
        for row in rows
    )


def _bar_note(row: BenchmarkRow) -> str:
    p90, p99 = milliseconds(row.total_ms.p90), milliseconds(row.total_ms.p99)
    memory = "" if row.peak_rss_mb is None else f", {row.peak_rss_mb:.0f} MB of memory"
    return f"p90 {p90}, p99 {p99}, {row.fps:.0f} frames a second{memory}"


def _widths(row: BenchmarkRow, widest_ms: float) -> tuple[float, float, float]:
    """Medians of stages do not add up to the median of the total; they share its width."""
    stages = (row.preprocess_ms, row.inference_ms, row.postprocess_ms)
    scale = 100 * row.total_ms.p50 / widest_ms / max(sum(stages), 1e-9)
    first, second, third = (round(stage * scale, 2) for stage in stages)
    return first, second, third


def _shown(picture: Picture) -> Shown:
    source = "data:image/jpeg;base64," + base64.b64encode(picture.jpeg).decode()
    return Shown(picture.title, picture.caption, source, picture.size_hw[1], picture.size_hw[0])


def _pictures_note(parity: ParityReport) -> str:
    alike = [row.name for row in parity.rows if not looks_different(row)]
    return f"Nothing that an eye could see differs in {', '.join(alike)}" if alike else ""


_BUDGET_NAMES = {
    "input_max_abs": "input tensor, largest difference",
    "output_max_relative_error": "raw outputs, largest relative error",
    "output_min_snr_db": "raw outputs, least signal to noise (dB)",
    "layer_min_snr_db": "a layer by itself, least signal to noise (dB)",
    "matched_iou": "IoU of the same object",
    "min_matched_fraction": "least share of objects matched",
    "threshold_tolerance": "score tolerance at the threshold",
    "max_score_delta": "largest difference of score",
    "max_box_px": "largest difference of a coordinate (px)",
    "max_map_delta_points": "largest difference of mAP (points)",
    "min_map_fraction": "least share of the float mAP",
    "max_cross_runtime_map_points": "largest difference of mAP between runtimes (points)",
}

_CLASS_BUDGET_NAMES = {
    "min_objects": "least objects to judge by",
    "min_matched_fraction": "least share of objects matched",
    "min_ap_fraction": "least share of the float AP",
    "max_ap_drop_points": "most AP lost (points)",
}


def _budget_rows(budgets: Budgets) -> tuple[tuple[str, tuple[str, ...]], ...]:
    by_precision = [budgets.of(precision) for precision in PRECISIONS]
    labels = dict.fromkeys((EVERY_CLASS, *(label for budget in by_precision for label in budget.classes)))
    rows = [
        (name, tuple(_limit(getattr(budget, key)) for budget in by_precision))
        for key, name in _BUDGET_NAMES.items()
    ]
    for label in labels:
        who = "each class" if label == EVERY_CLASS else f"class {label}"
        limits = [budget.of_class(label) for budget in by_precision]
        rows += [
            (f"{who}: {name}", tuple(_limit(_judged(one, key)) for one in limits))
            for key, name in _CLASS_BUDGET_NAMES.items()
        ]
    return tuple(rows)


def _judged(limits: ClassBudget, key: str) -> float | None:
    value: float | None = getattr(limits, key)
    return value if limits.judges else None


def _limit(value: float | None) -> str:
    return NOTHING if value is None else f"{value:g}"


def _provenance(
    spec: DetectorSpec, parity: ParityReport, benchmark: BenchmarkReport | None
) -> tuple[tuple[str, str], ...]:
    machine = (benchmark or parity).environment
    packages = {**spec.provenance.tools, **machine.packages}
    left_out = parity.data_summary.left_out
    lines = [
        (
            "checkpoint sha256",
            parity.checkpoint_sha256 or spec.provenance.checkpoint_sha256 or "not recorded",
        ),
        ("trained on", spec.provenance.trained_on or "not recorded"),
        ("data", parity.data + (f"; left out: {left_out}" if left_out else "")),
        ("labels", ", ".join(spec.labels)),
        ("score threshold", f"{parity.score_threshold:g}"),
        ("machine", _machine(machine)),
        ("packages", _packages(packages)),
    ]
    if machine.int8:
        lines.append(("INT8 on this processor", machine.int8))
    if machine.governor:
        lines.append(("frequency governor", machine.governor))
    for device, its in parity.devices.items():
        governor = f"; frequency governor {its.governor}" if its.governor else ""
        lines.append((device, f"{_machine(its)}; {_packages(its.packages)}{governor}"))
        if its.int8:
            lines.append((f"INT8 on {device}", its.int8))
    return tuple(lines)


def _machine(its: Environment) -> str:
    clock = "" if its.max_mhz is None else f", up to {its.max_mhz:.0f} MHz"
    return f"{its.cpu}, {its.cores} cores{clock}, {its.os}, Python {its.python}"


def _packages(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
