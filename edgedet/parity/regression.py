"""A run against an earlier one of the same detector on the same images: what became worse, and by how much.

A gate for continuous integration: budgets say what an artifact may differ from PyTorch, which leaves room; a
baseline says that it may not use that room up unnoticed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from edgedet.environment import Environment
from edgedet.errors import DataError
from edgedet.parity.baseline import BaselineComparison, ClassChange, Regression, RowChange
from edgedet.parity.budgets import Budgets
from edgedet.parity.compare import MatchCount
from edgedet.parity.foreign import foreign_fields, shown
from edgedet.parity.report import ClassParity, ParityReport, ParityRow, Stage
from edgedet.spec import Precision

_Key = tuple[str, Precision, str]

_PORT = re.compile(r":\d+$")

# What to do where a run and its baseline cannot be compared.
_NEW_BASELINE = "give a baseline of this detector, or write a new one with --json"
_SAME_IMAGES = "use the same images, --split, --limit and --device, or write a new baseline with --json"

# Two runs of one float detector on the same images differ by less.
_SAME_MAP = 1e-4


def compare_with_baseline(
    report: ParityReport,
    baseline: ParityReport,
    runtimes: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    devices: Sequence[str] | None = None,
) -> BaselineComparison:
    """What became worse since an earlier run.

    Args:
        report: The run.
        baseline: The earlier one.
        runtimes: Those that the run was asked for; artifacts of others are not missed. None for all.
        precisions: Likewise.
        devices: Likewise, their addresses. One whose port alone changed is the same device.

    Raises:
        DataError: The two cannot be compared: another detector, other classes, other images, or no artifact
            in common.
    """
    other_ports = _other_ports(report, baseline)
    baseline = _renamed(baseline, other_ports)
    check_comparable(report, baseline)
    ours, theirs = _by_key(report.rows), _by_key(baseline.rows)
    rows: list[RowChange] = []
    regressions: list[Regression] = []
    for key in [key for key in ours if key in theirs]:
        change = _change(ours[key], theirs[key], _matches_alike(key[1], report, baseline))
        rows.append(change)
        regressions += _regressions(ours[key], theirs[key], change, report.budgets)
    regressions += [
        _gone(row, report)
        for key, row in theirs.items()
        if key not in ours and _asked_for(row, runtimes, precisions, devices)
    ]
    differences = [f"{now} was {before} in the baseline" for before, now in other_ports.items()]
    differences += [
        f"what the baseline has of {device} was not asked for"
        for device in _devices(baseline)
        if devices is not None and device not in devices
    ]
    return BaselineComparison(
        differences=(*differences, *_differences(report, baseline)),
        rows=tuple(rows),
        new=tuple(row.name for key, row in ours.items() if key not in theirs),
        regressions=tuple(regressions),
        passed=not regressions,
    )


def check_comparable(report: ParityReport, baseline: ParityReport) -> None:
    """Refuse a baseline whose figures mean something else.

    Raises:
        DataError: It is of another detector, of other classes or images, or has no artifact in common.
    """
    check_same_detector(report.detector, [one.label for one in report.rows[0].classes], baseline)
    _check_same("data", report.data, baseline.data)
    _check_same("images", report.images, baseline.images)
    _check_same("labelled boxes", report.boxes, baseline.boxes)
    if not set(_by_key(report.rows)) & set(_by_key(baseline.rows)):
        names = ", ".join(row.name for row in baseline.rows) or "nothing"
        raise _incomparable(
            f"a run of {', '.join(row.name for row in report.rows)}",
            f"some of what the baseline has: {names}",
        )


def check_same_images(data: str, images: int, baseline: ParityReport) -> None:
    """Refuse the baseline of other images, as far as that is known before any work is done.

    Args:
        data: What the report will call the data set.
        images: How many there are at most.
        baseline: The earlier run.

    Raises:
        DataError: It is of another data set or split, or of more images.
    """
    _check_same("data", data, baseline.data)
    if images < baseline.images:
        _check_same("images", images, baseline.images)


def check_same_detector(name: str, labels: Sequence[str], baseline: ParityReport) -> None:
    """Refuse the baseline of another detector, before any work is done.

    Args:
        name: Name of the detector.
        labels: Its classes.
        baseline: The earlier run.

    Raises:
        DataError: It is of a detector of another name or other classes, or of no artifact.
    """
    if not baseline.rows:
        raise _incomparable("a baseline without artifacts", "one with some")
    if name != baseline.detector:
        raise _incomparable(
            f"a run of {name}", f"one of {baseline.detector}, as in the baseline", _NEW_BASELINE
        )
    theirs = [one.label for one in baseline.rows[0].classes]
    if list(labels) != theirs:
        raise _incomparable(
            f"the classes {', '.join(labels)}", f"those of the baseline: {', '.join(theirs)}", _NEW_BASELINE
        )


def _check_same(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise _incomparable(f"a run with {what} {got}", f"{what} {expected}, as in the baseline")


def _incomparable(got: str, expected: str, fix: str = _SAME_IMAGES) -> DataError:
    return DataError("the run and its baseline cannot be compared", got=got, expected=expected, fix=fix)


def _by_key(rows: Sequence[ParityRow]) -> dict[_Key, ParityRow]:
    return {(row.runtime, row.precision, row.device): row for row in rows}


def _devices(report: ParityReport) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.device for row in report.rows))


def _other_ports(report: ParityReport, baseline: ParityReport) -> dict[str, str]:
    """Devices of the baseline by what they are called now.

    Tunnels and adb over the network take a new port each time. Where either run has several devices of one
    host, ports tell them apart, and none is renamed.
    """
    ours, theirs = _devices(report), _devices(baseline)
    hosts = [[_PORT.sub("", name) for name in names] for names in (ours, theirs)]
    return {
        before: now
        for before, host in zip(theirs, hosts[1], strict=True)
        for now in ours
        if _PORT.sub("", now) == host and now != before and all(one.count(host) == 1 for one in hosts)
    }


def _renamed(report: ParityReport, devices: dict[str, str]) -> ParityReport:
    rows = [row.model_copy(update={"device": devices.get(row.device, row.device)}) for row in report.rows]
    environments = {devices.get(name, name): one for name, one in report.devices.items()}
    return report.model_copy(update={"rows": tuple(rows), "devices": environments})


def _matches_alike(precision: Precision, ours: ParityReport, theirs: ParityReport) -> bool:
    """Whether both runs mean the same by a detection that has a partner."""
    if ours.score_threshold != theirs.score_threshold:
        return False
    one, other = ours.budgets.of(precision), theirs.budgets.of(precision)
    return (one.matched_iou, one.threshold_tolerance) == (other.matched_iou, other.threshold_tolerance)


def _asked_for(row: ParityRow, *asked: Sequence[str] | None) -> bool:
    key = (row.runtime, row.precision, row.device)
    return all(names is None or name in names for name, names in zip(key, asked, strict=True))


def _change(row: ParityRow, old: ParityRow, alike: bool) -> RowChange:
    return RowChange(
        runtime=row.runtime,
        precision=row.precision,
        device=row.device,
        same_file=row.model_sha256 == old.model_sha256,
        map_change=_difference(row.map, old.map),
        matched_fraction_change=row.matched_fraction - old.matched_fraction if alike else None,
        snr_change_db=_difference(row.output_snr_db, old.output_snr_db),
        classes=tuple(
            ClassChange(
                label=one.label,
                ap_change=_difference(one.ap, was.ap),
                matched_fraction_change=_matched(one) - _matched(was) if alike else None,
            )
            for one, was in zip(row.classes, old.classes, strict=True)
        ),
    )


def _regressions(row: ParityRow, old: ParityRow, change: RowChange, budgets: Budgets) -> Iterator[Regression]:
    """First stage first; figures of fewer images are not compared."""
    limits = budgets.baseline
    if row.images < old.images:
        yield _regression(
            row, "runtime", f"it ran on {row.images} images, and on {old.images} in the baseline"
        )
        return
    if _fell(change.snr_change_db, limits.max_snr_drop_db):
        yield _regression(
            row,
            "raw outputs",
            f"{row.output_snr_db:.1f} dB signal to noise, {old.output_snr_db:.1f} in the baseline; "
            f"the limit is a fall of {limits.max_snr_drop_db:g} dB",
        )
    if _fell(change.matched_fraction_change, limits.max_matched_drop):
        label = _worst_class(change)
        yield _regression(
            row,
            "detections",
            f"{row.matched_percent:.2f} % of detections match, {old.matched_percent:.2f} % in the baseline; "
            f"the limit is a fall of {100 * (limits.max_matched_drop or 0):g} points"
            + (f"; class {label} changed most" if label else ""),
            label,
        )
    yield from _class_match_regressions(row, old, change, budgets)
    yield from _map_regressions(row, old, change, budgets)


def _class_match_regressions(
    row: ParityRow, old: ParityRow, change: RowChange, budgets: Budgets
) -> Iterator[Regression]:
    limit, budget = budgets.baseline.max_class_matched_drop, budgets.of(row.precision)
    for one, was, moved in zip(row.classes, old.classes, change.classes, strict=True):
        enough = was.matched + was.lost >= budget.of_class(one.label).min_objects
        if enough and _fell(moved.matched_fraction_change, limit):
            yield _regression(
                row,
                "detections",
                f"class {one.label}: {100 * _matched(one):.2f} % of detections match, "
                f"{100 * _matched(was):.2f} % in the baseline; "
                f"the limit is a fall of {100 * (limit or 0):g} points",
                one.label,
            )


def _map_regressions(
    row: ParityRow, old: ParityRow, change: RowChange, budgets: Budgets
) -> Iterator[Regression]:
    limits, budget = budgets.baseline, budgets.of(row.precision)
    limit = limits.max_map_drop_points
    if change.map_change is not None and _fell(100 * change.map_change, limit):
        yield _regression(row, "mAP", _fall("mAP", row.map, old.map, limit))
    limit = limits.max_class_ap_drop_points
    for one, was, moved in zip(row.classes, old.classes, change.classes, strict=True):
        enough = was.boxes >= budget.of_class(one.label).min_objects
        if enough and moved.ap_change is not None and _fell(100 * moved.ap_change, limit):
            yield _regression(row, "mAP", _fall(f"class {one.label}: AP", one.ap, was.ap, limit), one.label)


def _fall(what: str, now: float | None, before: float | None, limit: float | None) -> str:
    return (
        f"{what} {100 * (now or 0):.2f}, {100 * (before or 0):.2f} in the baseline; "
        f"the limit is a fall of {limit or 0:g}"
    )


def _fell(change: float | None, limit: float | None) -> bool:
    # A fall by the very limit is within it, whatever its last bit is.
    return change is not None and limit is not None and -change > limit + 1e-9


def _worst_class(change: RowChange) -> str:
    """The class of whose detections the largest share has no partner any more; "" where there is none."""
    moved = {one.label: one.matched_fraction_change or 0.0 for one in change.classes}
    label = min(moved, key=lambda name: moved[name], default="")
    return label if label and moved[label] < 0 else ""


def _regression(row: ParityRow, stage: Stage, reason: str, label: str = "") -> Regression:
    return Regression(
        runtime=row.runtime,
        precision=row.precision,
        device=row.device,
        stage=stage,
        label=label,
        reason=reason,
    )


def _gone(row: ParityRow, report: ParityReport) -> Regression:
    reasons = [
        reason
        for runtime, precision, device, reason in report.not_compared
        if (runtime, precision) == (row.runtime, row.precision) and device in (row.device, "")
    ]
    why = f": {reasons[0]}" if reasons else ""
    return _regression(row, "runtime", f"it is in the baseline and was not compared now{why}")


def _differences(report: ParityReport, baseline: ParityReport) -> Iterator[str]:
    """What else differs, which may be why figures do, one sentence each."""
    if report.checkpoint_sha256 != baseline.checkpoint_sha256:
        yield "another checkpoint: other weights or settings are in the figures too"
    elif _moved(report.reference.map, baseline.reference.map):
        yield (
            f"the same float detector reaches mAP {100 * (report.reference.map or 0):.2f} now and "
            f"{100 * (baseline.reference.map or 0):.2f} in the baseline: other images of the same name, or "
            "another PyTorch"
        )
    if report.spec is not None and baseline.spec is not None:
        for one in foreign_fields(report.spec, baseline.spec):
            if one.field not in {"provenance", "score_threshold"}:
                yield (
                    f"the detector has another {one.path}, which changes {one.stage} and what follows: "
                    f"{shown(one.own)}, {shown(one.expected)} in the baseline"
                )
    if report.score_threshold != baseline.score_threshold:
        yield (
            f"a score threshold of {report.score_threshold:g}, {baseline.score_threshold:g} in the baseline: "
            "shares of matched detections are not compared"
        )
    yield from _budget_differences(report, baseline)
    yield from _machine_differences(report, baseline)


def _budget_differences(report: ParityReport, baseline: ParityReport) -> Iterator[str]:
    changed = []
    for precision in dict.fromkeys(row.precision for row in report.rows):
        ours = report.budgets.of(precision).model_dump()
        theirs = baseline.budgets.of(precision).model_dump()
        names = [name for name in ours if ours[name] != theirs[name]]
        if {"matched_iou", "threshold_tolerance"} & set(names):
            changed.append(f"{precision} ({', '.join(names)}: shares of matched detections are not compared)")
        elif names:
            changed.append(f"{precision} ({', '.join(names)})")
    if changed:
        yield f"other budgets: {'; '.join(changed)}"


def _machine_differences(report: ParityReport, baseline: ParityReport) -> Iterator[str]:
    yield from _environment_differences(report.environment, baseline.environment)
    for device, ours in report.devices.items():
        if device in baseline.devices:
            for line in _environment_differences(ours, baseline.devices[device]):
                yield f"{device}: {line}"


def _environment_differences(ours: Environment, theirs: Environment) -> Iterator[str]:
    for what, got, before in (("processor", ours.cpu, theirs.cpu), ("Python", ours.python, theirs.python)):
        if got != before:
            yield f"another {what}: {got}, {before} in the baseline"
    if ours.processor and theirs.processor and ours.processor != theirs.processor:
        yield f"other instructions: {ours.processor.summary}, {theirs.processor.summary} in the baseline"
    for name in sorted(ours.packages.keys() | theirs.packages.keys()):
        version, old = ours.packages.get(name), theirs.packages.get(name)
        if version != old:
            yield f"{name} {version or 'is not installed'}, {old or 'not installed'} in the baseline"


def _moved(now: float | None, before: float | None) -> bool:
    return (now is None) != (before is None) or abs((now or 0) - (before or 0)) > _SAME_MAP


def _matched(one: ClassParity) -> float:
    return MatchCount(one.matched, one.lost, one.gained).matched_fraction


def _difference(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else now - before
