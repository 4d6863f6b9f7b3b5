"""What an export wrote."""

from __future__ import annotations

from typing import Literal

from edgedet.data.coverage import Coverage
from edgedet.spec import Batch, Precision, Value
from edgedet_export.accuracy_budget import BudgetReport


class ExportRow(Value):
    """One artifact: what was written and how far its outputs are from its source's on real images.

    `status` is "not built" where the device format could not be built on this machine, "built" where nothing
    here can run it, and `note` says why. `build_seconds` are a part of `seconds`.
    """

    target: str
    precision: Precision
    status: Literal["ok", "built", "not built"]
    file: str
    bytes: int
    max_relative_error: float
    output_snr_db: float
    seconds: float
    build_seconds: float | None = None
    note: str = ""
    batch: Batch = 1


class ExportReport(Value):
    """What an export wrote, what INT8 was calibrated on, and why that may not have been enough.

    `budget` says what a budget of accuracy took, where one was given.
    """

    bundle: str
    calibration_images: int
    budget: BudgetReport | None = None
    rows: tuple[ExportRow, ...]
    coverage: Coverage | None = None
    warnings: tuple[str, ...] = ()
