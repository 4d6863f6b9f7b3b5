"""What a parity run found, as values that are written as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from edgedet.environment import Environment
from edgedet.errors import DataError
from edgedet.files import write_atomically
from edgedet.parity.budgets import Budgets
from edgedet.selection import Skipped
from edgedet.spec import Precision, Value

Stage = Literal[
    "runtime", "input tensor", "raw outputs", "decoded boxes", "detections", "mAP", "mAP across runtimes"
]
Box = tuple[float, float, float, float]


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
    """Detections of one class; `ap_delta` is candidate less reference, None without ground truth."""

    label: str
    matched: int
    lost: int
    gained: int
    ap_delta: float | None


class ComparedObject(Value):
    """One object in one image as reference and candidate see it; the side that lacks it is None."""

    label: str
    outcome: Literal["matched", "lost", "gained", "excused"]
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
    """One artifact against the float detector.

    Attributes:
        runtime: Name of the runtime.
        precision: Precision of the artifact.
        device: Where it ran.
        model_bytes: Size of the artifact's files.
        model_sha256: Of the file that the runtime opens.
        images: Images that it ran on.
        map: Mean average precision 0..1; None for data without boxes.
        map50: The same at IoU 0.5.
        map_delta: mAP less that of the float detector.
        matched_fraction: Share of detections, of both sides, that have a partner.
        matched: Pairs.
        lost: Detections of the float detector without a partner.
        gained: Detections of the artifact without a partner.
        excused: Detections without a partner whose score is too close to the threshold to count.
        max_score_delta: Largest difference of score in a pair.
        max_box_px: Largest difference of a coordinate in a pair, in pixels of the image.
        decoded_matched_fraction: Share of boxes before suppression that its reference has too, and the other
            way.
        output_snr_db: The lowest of the raw outputs, against its own reference.
        output_max_relative_error: The highest of the raw outputs.
        outputs: The same by output.
        classes: Detections by class.
        worst_images: Images that differ most, the worst first.
        first_stage_over_budget: Where the first difference beyond the budget is.
        passed: Whether every stage stayed in its budget.
        reasons: One sentence a broken limit.
        notes: What was not compared, and why.
    """

    runtime: str
    precision: Precision
    device: str = "local"
    model_bytes: int
    model_sha256: str
    images: int
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
    classes: tuple[ClassParity, ...]
    worst_images: tuple[ComparedImage, ...]
    first_stage_over_budget: Stage | None
    passed: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()


class Reference(Value):
    """The float detector that all rows are compared with."""

    runtime: str
    precision: Precision
    map: float | None
    map50: float | None
    detections: int


class ParityReport(Value):
    """Everything that a parity run found."""

    schema_version: Literal[1] = 1
    detector: str
    checkpoint_sha256: str
    data: str
    images: int
    boxes: int
    score_threshold: float
    reference: Reference
    rows: tuple[ParityRow, ...]
    skipped: tuple[Skipped, ...]
    budgets: Budgets
    environment: Environment
    passed: bool = Field(description="every row passed, and there is at least one")

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_atomically(path, self.model_dump_json(indent=2) + "\n")

    @staticmethod
    def load(path: Path) -> ParityReport:
        """Read what `save` wrote.

        Raises:
            DataError: The file is missing or not a parity report of this schema version.
        """
        try:
            return ParityReport.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as exc:
            raise DataError(
                f"cannot read the parity report {path}",
                got=str(exc).splitlines()[0],
                expected="what `edgedet parity --json` wrote",
                fix="run `edgedet parity` again with this version of edgedet",
            ) from exc
