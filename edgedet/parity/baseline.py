"""How a run differs from an earlier one, as values that are part of its report."""

from __future__ import annotations

from edgedet.spec import Precision, Value


class ClassChange(Value):
    """One class; what either run did not measure is None.

    Attributes:
        label: Name of the class.
        ap_change: AP less that of the baseline, 0..1.
        matched_fraction_change: Share of detections with a partner less that of the baseline.
    """

    label: str
    ap_change: float | None
    matched_fraction_change: float | None


class Regression(Value):
    """A figure that is worse by more than is allowed.

    Attributes:
        runtime: Of the artifact.
        precision: Of the artifact.
        device: Where it ran.
        stage: Where the difference is: "runtime", "raw outputs", "detections" or "mAP".
        label: The class, or "" where it is of all of them.
        reason: One sentence with both figures and the limit.
    """

    runtime: str
    precision: Precision
    device: str
    stage: str
    label: str
    reason: str

    @property
    def name(self) -> str:
        """The artifact that it is of."""
        return f"{self.runtime} {self.precision}" + ("" if self.device == "local" else f" on {self.device}")


class RowChange(Value):
    """One artifact in both runs; what either did not measure is None, and so is what cannot be compared.

    Attributes:
        runtime: Name of the runtime.
        precision: Precision of the artifact.
        device: Where it ran.
        same_file: Whether the file is the one of the baseline.
        map_change: mAP less that of the baseline, 0..1.
        matched_fraction_change: Share of detections with a partner less that of the baseline.
        snr_change_db: Lowest signal to noise of a raw output less that of the baseline.
        classes: The same by class.
    """

    runtime: str
    precision: Precision
    device: str
    same_file: bool
    map_change: float | None
    matched_fraction_change: float | None
    snr_change_db: float | None
    classes: tuple[ClassChange, ...]


class BaselineComparison(Value):
    """A run against an earlier one.

    Attributes:
        differences: What else differs between the runs: devices, checkpoint, budgets, machines, packages.
        rows: Artifacts that both have.
        new: Artifacts that the baseline does not have; "runtime precision", and the device but for this one.
        regressions: What is worse by more than is allowed, an artifact that is gone included.
        passed: Whether there is none.
    """

    differences: tuple[str, ...]
    rows: tuple[RowChange, ...]
    new: tuple[str, ...]
    regressions: tuple[Regression, ...]
    passed: bool
