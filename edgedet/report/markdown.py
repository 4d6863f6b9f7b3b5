"""A parity report as GitHub's Markdown, for the summary of a run: the verdict, tables, reasons."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence

from edgedet.parity.report import ParityReport, ParityRow
from edgedet.report.page import verdict_of
from edgedet.report.wording import NOTHING, decibels, megabytes, points, signed_points

_SPECIAL = re.compile(r"([\\`*_\[\]|~])")
_MOST_IMAGES = 10
_COLUMNS = ("artifact", "size", "mAP", "ΔmAP", "matched", "lost / gained", "raw SNR", "verdict")
_NUMBERS = frozenset(range(1, 7))


def markdown_of(report: ParityReport) -> str:
    """The summary; what comes from outside, names of classes and images, is escaped."""
    passed = report.passed and (report.baseline is None or report.baseline.passed)
    reference = report.reference
    blocks = [
        f"### {'Passed' if passed else 'Failed'}: {_escaped(verdict_of(report))}",
        f"{_escaped(report.detector)} on {report.images} images of {_escaped(report.data)}, {report.boxes} "
        f"boxes. {reference.runtime} {reference.precision} finds {reference.detections} objects, mAP "
        f"{points(reference.map)}.",
        *(_escaped(line) for line in report.int8_lines),
        _table(_COLUMNS, map(_cells, report.rows), _NUMBERS),
        *_baseline(report),
        *(f"> {_escaped(line)}" for line in report.warnings),
        *(_details(row) for row in report.rows if row.reasons or row.notes),
        *_classes(report.rows),
        *(f"{_escaped(one.name)} was not compared: {_escaped(one.reason)}" for one in report.not_compared),
    ]
    return "\n\n".join(blocks) + "\n"


def _cells(row: ParityRow) -> tuple[str, ...]:
    return (
        row.name,
        megabytes(row.model_bytes),
        points(row.map),
        NOTHING if row.map_delta is None else signed_points(row.map_delta),
        f"{row.matched_percent:.2f} %",
        f"{row.lost} / {row.gained}",
        decibels(row.output_snr_db),
        "within budget" if row.passed else f"fails at {row.first_stage_over_budget}",
    )


def _details(row: ParityRow) -> str:
    images = [
        (
            one.image_id,
            one.first_stage_over_budget or NOTHING,
            str(one.lost),
            str(one.gained),
            ", ".join(one.classes),
        )
        for one in row.differing_images[:_MOST_IMAGES]
        if not row.passed
    ]
    lines = "\n".join(f"- {_escaped(line)}" for line in (*row.reasons, *row.notes))
    columns = ("image", "would leave its budget at", "lost", "gained", "classes")
    table = f"\n\n{_table(columns, images, {2, 3})}" if images else ""
    return _folded(f"{row.name}: {'what was found' if row.passed else 'why it fails'}", lines + table)


def _baseline(report: ParityReport) -> Iterator[str]:
    found = report.baseline
    if found is None:
        return
    if found.regressions:
        rows = [(one.name, one.stage, one.label or "all", one.reason) for one in found.regressions]
        yield "Worse than in the baseline:\n\n" + _table(("artifact", "stage", "class", "reason"), rows)
    else:
        yield "Nothing is worse than in the baseline by more than is allowed."
    other = [*found.differences, *(f"not in the baseline: {name}" for name in found.new)]
    if other:
        yield _folded(
            "What else differs from the baseline", "\n".join(f"- {_escaped(line)}" for line in other)
        )


def _classes(rows: Sequence[ParityRow]) -> Iterator[str]:
    """AP by class, folded; nothing where there are no labelled boxes."""
    measured = [row for row in rows if any(one.ap_delta is not None for one in row.classes)]
    if not measured:
        return
    table = [
        (
            one.label,
            points(one.reference_ap),
            *(
                NOTHING if (delta := row.classes[index].ap_delta) is None else signed_points(delta)
                for row in measured
            ),
        )
        for index, one in enumerate(measured[0].classes)
    ]
    columns = ("class", "float AP", *(f"Δ {row.name}" for row in measured))
    yield _folded("Average precision by class", _table(columns, table, set(range(1, len(columns)))))


def _folded(summary: str, text: str) -> str:
    return f"<details><summary>{html.escape(summary)}</summary>\n\n{text}\n\n</details>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    rule = ["---:" if index in set(numbers) else "---" for index in range(len(columns))]
    lines = [[_escaped(column) for column in columns], rule]
    lines += [[_escaped(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    """One line of plain words, whatever GitHub would make of its signs."""
    return _SPECIAL.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))
