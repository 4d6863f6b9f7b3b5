"""Measurements against a budget: which limits are broken, in the order of the stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgedet.evaluate import AccuracyReport
from edgedet.parity.budgets import Budget
from edgedet.parity.classes import judge_class_ap, judge_class_matches
from edgedet.parity.compare import ERROR_LIMIT, DecodedComparison, DetectionComparison, ImageOutputs
from edgedet.parity.foreign import ForeignField
from edgedet.parity.input_tensor import InputComparison
from edgedet.parity.layers import LayersReport
from edgedet.parity.report import OutputDifference, Stage, floor_percent
from edgedet.spec import Precision

# Below this, raw outputs are over their budget whatever the layers are.
EXCUSED_MIN_SNR_DB = 20.0

# Of the stages, as the data passes them; a field of the spec that none of them depends on comes last.
_ORDER: tuple[Stage, ...] = (
    "input tensor",
    "layers",
    "raw outputs",
    "decoded boxes",
    "detections",
    "mAP",
    "spec",
)

# Where to look when everything before a stage is within its budget.
_DECODING_HINT = (
    ". The raw outputs are within their budget: "
    "look at decoding (priors, variances, the way back to the image)"
)
_SUPPRESSION_HINT = (
    ". The boxes before suppression are within their budget: "
    "look at suppression (IoU threshold, classes, limit)"
)

# Where sums that overflow show.
_SATURATED: frozenset[Stage] = frozenset(
    {"layers", "raw outputs", "decoded boxes", "detections", "mAP", "mAP across runtimes"}
)

RuntimeMap = tuple[str, float | None]  # name of a runtime, and its mAP


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit that was broken: where, and the sentence that says by how much."""

    stage: Stage
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """All that was measured of one artifact; what could not be compared is None.

    Attributes:
        failure: What the runtime said when it failed, or "".
        foreign: Fields in which the artifact's own spec is not that of the bundle.
        input: The input tensor that the artifact is fed against that which the bundle's spec asks for.
        outputs: Raw outputs against the artifact's reference.
        layers: What its layers compute by themselves, where that was looked at.
        decoded: Boxes before suppression against the artifact's reference.
        detections: Detections against the float detector, or what was trained in 8 bits.
        same_integers: Share of detections that have a partner among those of the artifact's reference.
        accuracy: Accuracy of the artifact.
        reference: Accuracy of the float detector.
        image_outputs: Raw outputs of each image, in the order of `detections.images`.
        saturation: What to say of sums that overflow where it ran, or "".
    """

    failure: str
    foreign: tuple[ForeignField, ...]
    input: InputComparison
    outputs: tuple[OutputDifference, ...] | None
    layers: LayersReport | None
    decoded: DecodedComparison | None
    detections: DetectionComparison
    same_integers: float
    accuracy: AccuracyReport
    reference: AccuracyReport
    image_outputs: Sequence[ImageOutputs] = ()
    saturation: str = ""


def judge(measured: Measured, budget: Budget) -> list[Breach]:
    """Every limit of the budget that was broken, first stage first.

    A field of the artifact's own spec that is not that of the bundle belongs to the stage that it governs and
    comes first there, as the cause of the figures behind it. What governs no stage is `spec`, the last.
    """
    if measured.failure:
        foreign = [Breach("spec", one.reason) for one in measured.foreign]
        return [*foreign, Breach("runtime", measured.failure)]
    outputs = judge_outputs(measured.outputs or (), measured.layers, budget)
    decoded = _judge_decoded(measured.decoded, budget, alone=not outputs)
    found = [
        *(Breach(one.stage, one.reason) for one in measured.foreign),
        *_judge_input(measured.input, budget),
        *_judge_layers(measured.layers, budget),
        *outputs,
        *decoded,
        *_judge_detections(measured, budget, alone=not outputs and not decoded),
        *(Breach("detections", reason) for reason in judge_class_matches(measured.detections, budget)),
        *_judge_map(measured.accuracy.map, measured.reference.map, budget),
        *(
            Breach("mAP", reason)
            for reason in judge_class_ap(measured.detections, measured.accuracy, measured.reference, budget)
        ),
    ]
    return sorted(found, key=lambda breach: _ORDER.index(breach.stage))


def judge_across_runtimes(
    own: RuntimeMap, others: Sequence[RuntimeMap], precision: Precision, budget: Budget
) -> list[Breach]:
    """Whether the mAP of one runtime is near that of every other of its precision."""
    limit = budget.max_cross_runtime_map_points
    name, value = own
    breaches = []
    for other_name, other in others:
        if other_name == name or value is None or other is None or limit is None:
            continue
        points = 100 * abs(value - other)
        if points > limit:
            reason = (
                f"{precision} mAP is {points:.2f} points from that of {other_name}; the budget is {limit:g}"
            )
            breaches.append(Breach("mAP across runtimes", reason))
    return breaches


def with_saturation(breaches: Sequence[Breach], saturation: str) -> list[Breach]:
    """The same breaches, with sums that overflow as the cause behind the first that they may be of."""
    found = list(breaches)
    for number, breach in enumerate(found):
        if saturation and breach.stage in _SATURATED:
            found.insert(number + 1, Breach(breach.stage, saturation))
            break
    return found


def _judge_input(compared: InputComparison, budget: Budget) -> list[Breach]:
    if compared.max_abs <= budget.input_max_abs:
        return []
    by = "cannot be compared" if compared.max_abs >= ERROR_LIMIT else f"differs by {compared.max_abs:.3g}"
    cause = f": {compared.cause}" if compared.cause else ""
    limit = f"the budget is {budget.input_max_abs:g}"
    return [Breach("input tensor", f"the input tensor that the artifact is fed {by}; {limit}{cause}")]


def judge_outputs(
    outputs: Sequence[OutputDifference], layers: LayersReport | None, budget: Budget
) -> list[Breach]:
    """The limits of raw outputs that were broken, but for noise that `explanation` accounts for."""
    breaches = []
    if explanation(layers, budget) and budget.output_min_snr_db is not None:
        floor = min(budget.output_min_snr_db, EXCUSED_MIN_SNR_DB)
        budget = budget.model_copy(update={"output_min_snr_db": floor})
    error_limit, snr_limit = budget.output_max_relative_error, budget.output_min_snr_db
    for output in outputs:
        if output.max_relative_error >= ERROR_LIMIT:
            reason = f"{output.name} has another shape, or values that are not finite"
        elif error_limit is not None and output.max_relative_error > error_limit:
            error = output.max_relative_error
            reason = f"{output.name} differs by {error:.2g} of its range; the budget is {error_limit:g}"
        elif snr_limit is not None and output.snr_db < snr_limit:
            reason = (
                f"{output.name} has {output.snr_db:.1f} dB signal to noise; the budget is {snr_limit:g} dB"
            )
        else:
            continue
        breaches.append(Breach("raw outputs", reason))
    return breaches


def _judge_layers(layers: LayersReport | None, budget: Budget) -> list[Breach]:
    limit = budget.layer_min_snr_db
    if layers is None or limit is None or (layer := layers.first_over(limit)) is None:
        return []
    if not layer.has_expected_grid:
        assert layer.grid is not None
        assert layer.expected_grid is not None
        (scale, zero_point), (expected, expected_zero_point) = layer.grid, layer.expected_grid
        reason = (
            f"{layer.label} has scale {scale:.6g} and zero point {zero_point}; "
            f"the calibration gives {expected:.6g} and {expected_zero_point}"
        )
    else:
        reason = (
            f"{layer.label} is the first layer that the runtime computes differently: "
            f"{layer.local_snr_db:.1f} dB from the same integers; the budget is {limit:g} dB"
        )
    return [Breach("layers", reason)]


def explanation(layers: LayersReport | None, budget: Budget) -> str:
    """Why raw outputs may have more noise than their budget; "" where the layers do not tell.

    Every layer computes what the reference computes from the same integers, but for half steps that are
    rounded to the one or to the other, and that adds up.
    """
    if layers is None or budget.layer_min_snr_db is None or not layers.accounts_for_noise:
        return ""
    worst = layers.worst
    moved = 100 * (worst.moved_fraction or 0.0)
    return (
        f"from the same integers no value of {layers.quantized} layers is more than one step from the "
        f"reference; {worst.label} differs most, where {moved:.2g} % of the values do by one step "
        f"({worst.local_snr_db:.1f} dB): the noise of the raw outputs is such rounding, added up"
    )


def _judge_decoded(decoded: DecodedComparison | None, budget: Budget, *, alone: bool) -> list[Breach]:
    if decoded is None:
        return []
    breaches = []
    hint = _DECODING_HINT if alone else ""
    if decoded.matched_fraction < budget.min_matched_fraction:
        reason = (
            f"{_percent(decoded.matched_fraction)} of the boxes before suppression are the same at IoU "
            f"{budget.matched_iou:g}; the budget is {_percent(budget.min_matched_fraction)}{hint}"
        )
        breaches.append(Breach("decoded boxes", reason))
    if budget.max_box_px is not None and decoded.max_box_px > budget.max_box_px:
        limit = f"the budget is {budget.max_box_px:g}"
        reason = f"a box before suppression differs by {decoded.max_box_px:.3g} px; {limit}{hint}"
        breaches.append(Breach("decoded boxes", reason))
    return breaches


def _judge_detections(measured: Measured, budget: Budget, *, alone: bool) -> list[Breach]:
    found, breaches = measured.detections, []
    if not found.reference_objects:
        reason = f"nothing to compare: the reference found nothing above {found.score_threshold:g}"
        breaches.append(Breach("detections", reason))
    elif not found.matched:
        reason = f"not one of the {found.reference_objects} objects of the reference was found"
        breaches.append(Breach("detections", reason))
    if found.matched_fraction < budget.min_matched_fraction:
        hint = _detections_hint(measured.same_integers, budget) if alone else ""
        breaches.append(Breach("detections", _unmatched(found, budget) + hint))
    if budget.max_score_delta is not None and found.max_score_delta > budget.max_score_delta:
        reason = f"a score differs by {found.max_score_delta:.2g}; the budget is {budget.max_score_delta:g}"
        breaches.append(Breach("detections", reason))
    if budget.max_box_px is not None and found.max_box_px > budget.max_box_px:
        reason = f"a box differs by {found.max_box_px:.3g} px; the budget is {budget.max_box_px:g}"
        breaches.append(Breach("detections", reason))
    return breaches


def _detections_hint(same_integers: float, budget: Budget) -> str:
    """Where to look when everything before suppression is within its budget."""
    if same_integers < budget.min_matched_fraction:
        return _SUPPRESSION_HINT
    return (
        f". {_percent(same_integers)} match those of PyTorch that computes the same "
        "integers: this is what quantization costs, and no fault of the runtime"
    )


def _unmatched(found: DetectionComparison, budget: Budget) -> str:
    worst, count = max(found.by_class.items(), key=lambda item: item[1].lost + item[1].gained)
    images = ", ".join(image.image_id for image in found.worst if image.lost + image.gained)
    return (
        f"{_percent(found.matched_fraction)} of detections match at IoU {budget.matched_iou:g}; "
        f"the budget is {_percent(budget.min_matched_fraction)}. "
        f"{found.lost} lost and {found.gained} gained, most of class {found.labels[worst]} "
        f"({count.lost} lost, {count.gained} gained); worst images: {images}"
    )


def _judge_map(value: float | None, reference: float | None, budget: Budget) -> list[Breach]:
    if value is None or reference is None:
        return []
    breaches = []
    points = 100 * (value - reference)
    delta, share = budget.max_map_delta_points, budget.min_map_fraction
    if delta is not None and abs(points) > delta:
        reason = f"mAP differs by {points:+.2f} points; the budget is {delta:g} either way"
        breaches.append(Breach("mAP", reason))
    if share is not None and value < share * reference:
        reason = f"{_percent(value / reference)} of the float mAP is left; the budget is {_percent(share)}"
        breaches.append(Breach("mAP", reason))
    return breaches


def _percent(fraction: float) -> str:
    return f"{floor_percent(fraction):g} %"
