"""What a parity run found, as values that are written as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field

from edgedet.data.dataset import LeftOutClasses, SummaryRecord
from edgedet.environment import Environment
from edgedet.parity.baseline import BaselineComparison
from edgedet.parity.budgets import Budgets
from edgedet.parity.distributions import Distributions
from edgedet.parity.layers import LayersReport
from edgedet.saved import SavedValue
from edgedet.selection import Skipped
from edgedet.spec import DetectorSpec, Precision, Value

Stage = Literal[
    "runtime",
    "spec",
    "input tensor",
    "layers",
    "raw outputs",
    "decoded boxes",
    "detections",
    "mAP",
    "mAP across runtimes",
]
Outcome = Literal["matched", "lost", "gained", "excused"]
Box = tuple[float, float, float, float]


def floor_percent(fraction: float) -> float:
    """A fraction in percent with two digits, rounded down: 99.996 % is not all."""
    return math.floor(fraction * 10_000 + 1e-6) / 100


class OutputDifference(Value):
    """One raw output of an artifact against its reference, over all images.

    Attributes:
        name: Name of the tensor.
        max_relative_error: Largest over images of max|a - b| / max|b|.
        snr_db: 10 log10(sum b² / sum (a - b)²), between -200 and 200; 200 where nothing differs.
    """

    name: str
    max_relative_error: float
    snr_db: float


class ClassParity(Value):
    """Detections of one class.

    Attributes:
        label: Name of the class.
        matched: Pairs.
        lost: Detections of its reference without a partner.
        gained: Detections of the artifact without a partner.
        excused: Detections without a partner whose score is too close to the threshold to count.
        ap_delta: AP less that of the float detector; None without ground truth.
        boxes: Ground-truth boxes.
        ap: AP of the artifact, 0..1; None without ground truth.
        reference_ap: AP of the float detector, likewise.
        unjudged: How many objects there are of how many that a judgement of this class needs, or "".
    """

    label: str
    matched: int
    lost: int
    gained: int
    excused: int
    ap_delta: float | None
    boxes: int = 0
    ap: float | None = None
    reference_ap: float | None = None
    unjudged: str = ""


class ImageParity(Value):
    """One image by itself.

    Attributes:
        image_id: Its name in the data set.
        first_stage_over_budget: Of raw outputs, decoded boxes and detections, the first that would leave the
            budget if there were no other image.
        matched: Pairs.
        lost: Detections of its reference without a partner.
        gained: Detections of the artifact without a partner.
        excused: Detections without a partner whose score is too close to the threshold to count.
        classes: Of what is lost or gained.
        max_score_delta: Largest difference of score in a pair.
        max_box_px: Largest difference of a coordinate in a pair, in pixels of the image.
        output_snr_db: The lowest of the raw outputs.
    """

    image_id: str
    first_stage_over_budget: Stage | None
    matched: int
    lost: int
    gained: int
    excused: int
    classes: tuple[str, ...]
    max_score_delta: float
    max_box_px: float
    output_snr_db: float


class ComparedObject(Value):
    """One object in one image as reference and candidate see it; the side that lacks it is None."""

    label: str
    outcome: Outcome
    reference_box_xyxy: Box | None = None
    reference_score: float | None = None
    box_xyxy: Box | None = None
    score: float | None = None


class ComparedImage(Value):
    """One image with all that was detected in it, enough to draw the comparison."""

    image_id: str
    lost: int
    gained: int
    max_score_delta: float
    max_box_px: float
    objects: tuple[ComparedObject, ...]


class ParityRow(Value):
    """One artifact against its reference: the float detector, or what was trained in 8 bits.

    mAP is compared with that of the float detector in both cases.

    Attributes:
        runtime: Name of the runtime.
        precision: Precision of the artifact.
        device: Where it ran.
        model_bytes: Size of the artifact's files.
        model_sha256: Of the file that the runtime opens.
        images: Images that it ran on.
        unseen_inputs: Images whose input tensor is another there than here, by how much was not looked at.
        map: Mean average precision 0..1; None for data without boxes.
        map50: The same at IoU 0.5.
        map_delta: mAP less that of the float detector.
        matched_fraction: Share of detections, of both sides, that have a partner.
        matched: Pairs.
        lost: Detections of its reference without a partner.
        gained: Detections of the artifact without a partner.
        excused: Detections without a partner whose score is too close to the threshold to count.
        max_score_delta: Largest difference of score in a pair.
        max_box_px: Largest difference of a coordinate in a pair, in pixels of the image.
        decoded_matched_fraction: Share of boxes before suppression that its reference has too, and the other
            way.
        output_snr_db: The lowest of the raw outputs, against its own reference.
        output_max_relative_error: The highest of the raw outputs.
        outputs: The same by output.
        layers: What its layers compute by themselves; None where that was not looked at.
        explanation: Why raw outputs may have more noise than their budget, or "".
        classes: Detections by class.
        distributions: How far partners differ, and the scores of what has none; None in reports of earlier
            versions.
        worst_images: Images that differ most, the worst first, with what is in them.
        differing_images: Images that lost or gained something or would leave the budget alone, the worst
            first, 200 at most.
        differing_images_left_out: How many more there are.
        first_stage_over_budget: Where the first difference beyond the budget is.
        stages_over_budget: Every stage that left its budget, in order.
        passed: Whether every stage stayed in its budget.
        reasons: One sentence a broken limit.
    """

    runtime: str
    precision: Precision
    device: str = "local"
    model_bytes: int
    model_sha256: str
    images: int
    unseen_inputs: int = 0
    map: float | None
    map50: float | None
    map_delta: float | None
    matched_fraction: float
    matched: int
    lost: int
    gained: int
    excused: int
    max_score_delta: float
    max_box_px: float
    decoded_matched_fraction: float | None
    output_snr_db: float | None
    output_max_relative_error: float | None
    outputs: tuple[OutputDifference, ...]
    layers: LayersReport | None = None
    explanation: str = ""
    classes: tuple[ClassParity, ...]
    distributions: Distributions | None = None
    worst_images: tuple[ComparedImage, ...]
    differing_images: tuple[ImageParity, ...] = ()
    differing_images_left_out: int = 0
    first_stage_over_budget: Stage | None
    stages_over_budget: tuple[Stage, ...]
    passed: bool
    reasons: tuple[str, ...]

    @property
    def name(self) -> str:
        """Runtime and precision, and the device where it is not this one."""
        return f"{self.runtime} {self.precision}" + ("" if self.device == "local" else f" on {self.device}")

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found of its input tensors and layers, one sentence each."""
        unseen = (
            f"the input tensors of {self.unseen_inputs} further images differ there, by how much was not "
            "looked at: a device sends the first of those that do"
        )
        layers = "" if self.layers is None else self.layers.summary
        return tuple(filter(None, (unseen if self.unseen_inputs else "", layers, self.explanation)))

    @property
    def matched_percent(self) -> float:
        """`matched_fraction` in percent, rounded down."""
        return floor_percent(self.matched_fraction)


class Reference(Value):
    """The float detector that all rows are compared with."""

    runtime: str
    precision: Precision
    map: float | None
    map50: float | None
    detections: int


class NotCompared(NamedTuple):
    """An artifact that was left out, and why.

    Attributes:
        runtime: Name of the runtime.
        precision: Precision of the artifact.
        device: Where, or "" where it was left out everywhere.
        reason: One sentence.
    """

    runtime: str
    precision: str
    device: str
    reason: str

    @property
    def name(self) -> str:
        """Runtime and precision, and the device where it was left out on one of several."""
        return f"{self.runtime} {self.precision}" + (f" on {self.device}" if self.device else "")


class ParityReport(SavedValue):
    """Everything that a parity run found.

    Attributes:
        detector: Name of the detector.
        checkpoint_sha256: Of its checkpoint.
        data: Format, name and split of the data set.
        data_summary: What the data set holds, and what was left out of it.
        images: Images that were compared.
        boxes: Their ground-truth boxes that count.
        left_out: Those of classes that the detector does not have.
        score_threshold: Of the detections that were compared.
        spec: The float detector's spec; None in reports of earlier versions.
        reference: The float detector.
        rows: One an artifact.
        skipped: What was not compared, and why.
        budgets: What was allowed to differ.
        environment: This machine.
        devices: The other machines that artifacts ran on, by their address.
        warnings: What a reader should know before believing a verdict.
        passed: Every row passed, and there is at least one.
        baseline: How the rows differ from those of an earlier run; None where that was not asked for.
    """

    command: ClassVar[str] = "edgedet parity"

    schema_version: Literal[1] = 1
    detector: str
    checkpoint_sha256: str
    data: str
    data_summary: SummaryRecord
    images: int
    boxes: int
    left_out: LeftOutClasses = LeftOutClasses()
    score_threshold: float
    spec: DetectorSpec | None = None
    reference: Reference
    rows: tuple[ParityRow, ...]
    skipped: tuple[Skipped, ...]
    budgets: Budgets
    environment: Environment
    devices: dict[str, Environment] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    passed: bool
    baseline: BaselineComparison | None = None

    @property
    def int8_lines(self) -> tuple[str, ...]:
        """What each machine's processor means for INT8, this one's first; nothing in earlier reports."""
        machines = {"": self.environment, **self.devices}
        return tuple(
            f"{device}: {its.int8}" if device else its.int8 for device, its in machines.items() if its.int8
        )

    @property
    def not_compared(self) -> tuple[NotCompared, ...]:
        """What was skipped; the reason of a device begins with its address."""
        found = [(one, *_device_of(one.reason, self.devices)) for one in self.skipped]
        tried = {f"{row.runtime} {row.precision}" for row in self.rows}
        tried |= {f"{one.runtime} {one.precision}" for one, device, _ in found if device}
        # What the bundle lacks is tried nowhere; what was tried on a device was skipped here for its runtime.
        return tuple(
            NotCompared(
                one.runtime,
                one.precision,
                device or ("local" if f"{one.runtime} {one.precision}" in tried else ""),
                reason,
            )
            for one, device, reason in found
        )


def _device_of(reason: str, devices: Iterable[str]) -> tuple[str, str]:
    """The device that a reason begins with, or "", and what follows."""
    for device in devices:
        if reason.startswith(f"{device}: "):
            return device, reason.removeprefix(f"{device}: ")
    return "", reason
