"""Measurements to the rows of a report: judged one by one, and then against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgedet.bundle import Artifact
from edgedet.parity.budgets import Budget, Budgets
from edgedet.parity.classes import class_parities, unjudged_line
from edgedet.parity.images import differing_images
from edgedet.parity.judge import (
    Breach,
    Measured,
    explanation,
    judge,
    judge_across_runtimes,
    judge_outputs,
    with_saturation,
)
from edgedet.parity.report import ParityRow

# One object in so many is a sixth of what an INT8 artifact may lose.
_FEW_OBJECTS = 200


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One artifact with everything that was measured of it."""

    artifact: Artifact
    device: str
    images: int
    measured: Measured


def parity_rows(judged: Sequence[Judged], labels: Sequence[str], budgets: Budgets) -> tuple[ParityRow, ...]:
    """One row an artifact, in the order given."""
    rows = []
    for one in judged:
        budget = budgets.of(one.artifact.precision)
        peers = [
            (other.artifact.runtime, other.measured.accuracy.map)
            for other in judged
            if (other.artifact.precision, other.device) == (one.artifact.precision, one.device)
        ]
        own = (one.artifact.runtime, one.measured.accuracy.map)
        breaches = judge(one.measured, budget)
        breaches += judge_across_runtimes(own, peers, one.artifact.precision, budget)
        breaches = with_saturation(breaches, one.measured.saturation)
        noisy = judge_outputs(one.measured.outputs or (), None, budget)
        excuse = explanation(one.measured.layers, budget) if noisy else ""
        rows.append(_row(one, labels, budget, breaches, excuse))
    return tuple(rows)


def warnings_of(images: int, objects: int, rows: Sequence[ParityRow]) -> tuple[str, ...]:
    """What a reader should know before believing a verdict.

    Args:
        images: Images that were compared.
        objects: Detections of the float detector in them.
        rows: What was judged.
    """
    few = tuple(dict.fromkeys(filter(None, (unjudged_line(row.classes) for row in rows))))
    if objects >= _FEW_OBJECTS or all(row.precision == "fp32" for row in rows):
        return few
    return (
        f"a small sample: with {objects} objects in {images} images one object is "
        f"{100 / max(objects, 1):.2g} % of them, and mAP moves by points where a single one differs; "
        f"judge INT8 on {_FEW_OBJECTS} objects or more",
        *few,
    )


def _row(
    one: Judged, labels: Sequence[str], budget: Budget, breaches: Sequence[Breach], excuse: str
) -> ParityRow:
    measured, detections = one.measured, one.measured.detections
    outputs = measured.outputs or ()
    images, left_out = differing_images(measured, labels, budget)
    return ParityRow(
        runtime=one.artifact.runtime,
        precision=one.artifact.precision,
        device=one.device,
        model_bytes=one.artifact.bytes,
        model_sha256=one.artifact.files[0].sha256,
        images=one.images,
        unseen_inputs=measured.input.unseen,
        map=measured.accuracy.map,
        map50=measured.accuracy.map50,
        map_delta=_difference(measured.accuracy.map, measured.reference.map),
        matched_fraction=detections.matched_fraction,
        matched=detections.matched,
        lost=detections.lost,
        gained=detections.gained,
        excused=detections.excused,
        max_score_delta=detections.max_score_delta,
        max_box_px=detections.max_box_px,
        decoded_matched_fraction=measured.decoded.matched_fraction if measured.decoded else None,
        output_snr_db=min((output.snr_db for output in outputs), default=None),
        output_max_relative_error=max((output.max_relative_error for output in outputs), default=None),
        outputs=outputs,
        layers=measured.layers,
        explanation=excuse,
        classes=class_parities(detections, measured.accuracy, measured.reference, budget),
        distributions=detections.counter.distributions(),
        worst_images=tuple(detections.worst),
        differing_images=images,
        differing_images_left_out=left_out,
        first_stage_over_budget=breaches[0].stage if breaches else None,
        stages_over_budget=tuple(dict.fromkeys(breach.stage for breach in breaches)),
        passed=not breaches,
        reasons=tuple(breach.reason for breach in breaches),
    )


def _difference(value: float | None, reference: float | None) -> float | None:
    return None if value is None or reference is None else value - reference
