"""Each image by itself: which stage would leave its budget if it were the only one."""

from __future__ import annotations

from collections.abc import Sequence

from edgedet.parity.budgets import Budget
from edgedet.parity.compare import ImageBoxes, ImageDetections, ImageOutputs
from edgedet.parity.judge import Measured, judge_outputs
from edgedet.parity.layers import LayersReport
from edgedet.parity.report import ImageParity, OutputDifference, Stage

MOST_IMAGES = 200


def differing_images(
    measured: Measured, labels: Sequence[str], budget: Budget
) -> tuple[tuple[ImageParity, ...], int]:
    """Images that lost or gained something, or would leave the budget alone, the worst first.

    Returns:
        The first `MOST_IMAGES` of them, and how many more there are.
    """
    if measured.failure or measured.decoded is None:
        return (), 0
    found = []
    # Where the artifact's own preprocessing is wrong, it is so of all images.
    wrong_input = measured.input.max_abs > budget.input_max_abs
    wrong_input |= any(one.stage == "input tensor" for one in measured.foreign)
    seen = zip(measured.image_outputs, measured.decoded.images, measured.detections.images, strict=True)
    for outputs, boxes, detections in seen:
        stage = _first_stage(outputs, boxes, detections, measured.layers, budget)
        if stage is not None and wrong_input:
            stage = "input tensor"
        if stage is not None or detections.lost_ids or detections.gained_ids:
            found.append(_record(stage, outputs, detections, labels))
    found.sort(
        key=lambda one: (-(one.lost + one.gained), one.first_stage_over_budget is None, -one.max_score_delta)
    )
    return tuple(found[:MOST_IMAGES]), max(0, len(found) - MOST_IMAGES)


def _first_stage(
    outputs: ImageOutputs,
    boxes: ImageBoxes,
    detections: ImageDetections,
    layers: LayersReport | None,
    budget: Budget,
) -> Stage | None:
    """Of the stages that one image can be judged by; mAP is of many, and the spec and the layers of none."""
    raw = OutputDifference(name="", max_relative_error=outputs.max_relative_error, snr_db=outputs.snr_db)
    if judge_outputs([raw], layers, budget):
        return "raw outputs"
    farthest = budget.max_box_px
    if boxes.matched_fraction < budget.min_matched_fraction or _is_over(boxes.max_box_px, farthest):
        return "decoded boxes"
    total = 2 * detections.matched + len(detections.lost_ids) + len(detections.gained_ids)
    too_few = 2 * detections.matched < budget.min_matched_fraction * total
    over = _is_over(detections.max_score_delta, budget.max_score_delta) or _is_over(
        detections.max_box_px, farthest
    )
    return "detections" if too_few or over else None


def _is_over(value: float, limit: float | None) -> bool:
    return limit is not None and value > limit


def _record(
    stage: Stage | None, outputs: ImageOutputs, detections: ImageDetections, labels: Sequence[str]
) -> ImageParity:
    unmatched = sorted({*detections.lost_ids, *detections.gained_ids})
    return ImageParity(
        image_id=detections.image_id,
        first_stage_over_budget=stage,
        matched=detections.matched,
        lost=len(detections.lost_ids),
        gained=len(detections.gained_ids),
        excused=detections.excused,
        classes=tuple(labels[class_id] for class_id in unmatched),
        max_score_delta=detections.max_score_delta,
        max_box_px=detections.max_box_px,
        output_snr_db=outputs.snr_db,
    )
