"""Each class by itself: what a mean over all classes hides, the loss of a rare one, is found here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgedet.evaluate import AccuracyReport, ClassAccuracy
from edgedet.parity.budgets import Budget, ClassBudget
from edgedet.parity.compare import DetectionComparison, MatchCount
from edgedet.parity.report import ClassParity, floor_percent

_NAMED_IMAGES = 3


def class_parities(
    found: DetectionComparison, accuracy: AccuracyReport, reference: AccuracyReport, budget: Budget
) -> tuple[ClassParity, ...]:
    """One value a class, in the order of the labels."""
    rows = []
    for class_id, label in enumerate(found.labels):
        count = found.by_class.get(class_id, MatchCount())
        ours, theirs = accuracy.classes[class_id], reference.classes[class_id]
        rows.append(
            ClassParity(
                label=label,
                matched=count.matched,
                lost=count.lost,
                gained=count.gained,
                excused=count.excused,
                boxes=theirs.boxes,
                ap=ours.ap,
                reference_ap=theirs.ap,
                ap_delta=None if ours.ap is None or theirs.ap is None else ours.ap - theirs.ap,
                unjudged=_unjudged(count, theirs, budget.of_class(label), labelled=reference.boxes > 0),
            )
        )
    return tuple(rows)


def judge_class_matches(found: DetectionComparison, budget: Budget) -> Iterator[str]:
    """One sentence for every class of whose detections too few have a partner."""
    for class_id, label in enumerate(found.labels):
        count, limits = found.by_class.get(class_id, MatchCount()), budget.of_class(label)
        least = limits.min_matched_fraction
        if least is None or count.reference_objects < limits.min_objects or count.matched_fraction >= least:
            continue
        yield (
            f"class {label}: {_percent(count.matched_fraction)} of detections match at IoU "
            f"{budget.matched_iou:g}; the budget is {_percent(least)}. {count.lost} lost and {count.gained} "
            f"gained{_worst_images(found, class_id)}"
        )


def judge_class_ap(
    found: DetectionComparison, accuracy: AccuracyReport, reference: AccuracyReport, budget: Budget
) -> Iterator[str]:
    """One sentence for every limit of a class's average precision that was broken."""
    for class_id, label in enumerate(found.labels):
        ours, theirs, limits = accuracy.classes[class_id], reference.classes[class_id], budget.of_class(label)
        if ours.ap is None or theirs.ap is None or theirs.boxes < limits.min_objects:
            continue
        share, drop = limits.min_ap_fraction, limits.max_ap_drop_points
        points = 100 * (theirs.ap - ours.ap)
        images = _worst_images(found, class_id)
        if share is not None and ours.ap < share * theirs.ap:
            yield (
                f"class {label}: {_percent(ours.ap / theirs.ap)} of the float AP is left, "
                f"{100 * ours.ap:.2f} of {100 * theirs.ap:.2f}; the budget is {_percent(share)}{images}"
            )
        if drop is not None and points > drop:
            yield f"class {label}: AP fell by {points:.2f} points; the budget is {drop:g}{images}"


def unjudged_line(classes: Sequence[ClassParity], most: int = 8) -> str:
    """Which classes have too few objects to be judged by themselves, as one sentence, or ""."""
    few = [f"{one.label} ({one.unjudged})" for one in classes if one.unjudged]
    more = f" and {len(few) - most} more" if len(few) > most else ""
    if not few:
        return ""
    return f"classes with too few objects are not judged by themselves: {', '.join(few[:most])}{more}"


def _unjudged(count: MatchCount, truth: ClassAccuracy, limits: ClassBudget, *, labelled: bool) -> str:
    parts = []
    if limits.min_matched_fraction and count.reference_objects < limits.min_objects:
        parts.append(f"{count.reference_objects} of {limits.min_objects} detections")
    judges_ap = bool(limits.min_ap_fraction) or limits.max_ap_drop_points is not None
    if labelled and judges_ap and truth.boxes < limits.min_objects:
        parts.append(f"{truth.boxes} of {limits.min_objects} labelled boxes")
    return " and ".join(parts)


def _worst_images(found: DetectionComparison, class_id: int) -> str:
    """The images where the class differs most, as the end of a sentence."""
    differing = [image for image in found.images if image.unmatched(class_id)]
    differing.sort(key=lambda image: -image.unmatched(class_id))
    names = ", ".join(image.image_id for image in differing[:_NAMED_IMAGES])
    return f"; worst images: {names}" if names else ""


def _percent(fraction: float) -> str:
    return f"{floor_percent(fraction):g} %"
