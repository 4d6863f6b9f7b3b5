"""How much an artifact may differ from its reference, as data."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError

from edgedet.errors import ConfigError
from edgedet.spec import PRECISIONS, Precision, Value, first_problem

Amount = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Budget(Value):
    """What one precision may cost; a limit that is None is not judged.

    Attributes:
        input_max_abs: Largest difference of an element of the input tensor.
        output_max_relative_error: Largest difference of an element of a raw output over the largest element
            of it.
        output_min_snr_db: Signal to noise of each raw output over all images.
        layer_min_snr_db: Signal to noise of each layer by itself, from what the runtime's layer read.
        matched_iou: IoU from which a detection is the same detection.
        min_matched_fraction: Share of detections, of both sides, that have a partner.
        threshold_tolerance: A detection whose score is less than this above the threshold may be missing on
            the other side without counting as lost or gained.
        max_score_delta: Largest difference of score between partners.
        max_box_px: Largest difference of a coordinate between partners, in pixels of the image.
        max_map_delta_points: Largest difference of mAP from the float detector's, either way.
        min_map_fraction: Share of the float detector's mAP that must be left.
        max_cross_runtime_map_points: Largest difference of mAP between two runtimes of this precision.
    """

    input_max_abs: Amount
    output_max_relative_error: Amount | None = None
    output_min_snr_db: float | None = None
    layer_min_snr_db: float | None = None
    matched_iou: Annotated[float, Field(gt=0, le=1)]
    min_matched_fraction: Fraction
    threshold_tolerance: Annotated[float, Field(ge=0, le=0.2)]
    max_score_delta: Fraction | None = None
    max_box_px: Amount | None = None
    max_map_delta_points: Amount | None = None
    min_map_fraction: Fraction | None = None
    max_cross_runtime_map_points: Amount | None = None


class Budgets(Value):
    """One budget a precision."""

    model_config = ConfigDict(populate_by_name=True)

    fp32: Budget
    fp16: Budget
    int8: Budget
    int8_a16: Budget = Field(alias="int8-a16")
    int8_dynamic: Budget = Field(alias="int8-dynamic")

    def of(self, precision: Precision) -> Budget:
        """The budget of a precision."""
        budget: Budget = getattr(self, precision.replace("-", "_"))
        return budget


def load_budgets(path: Path | None = None) -> Budgets:
    """The budgets that come with edgedet, with those of a TOML file over them.

    Raises:
        ConfigError: The file cannot be read, names what does not exist or gives a limit that makes no sense.
    """
    defaults = tomllib.loads(resources.files("edgedet.parity").joinpath("budgets.toml").read_text("utf-8"))
    changes = _read_toml(path) if path else {}
    merged = dict(defaults)
    for name, change in changes.items():
        merged[name] = {**merged.get(name, {}), **change} if isinstance(change, dict) else change
    try:
        return Budgets.model_validate(merged)
    except ValidationError as exc:
        raise ConfigError(
            f"cannot use the budgets in {path}",
            got=first_problem(exc),
            expected=f"tables {', '.join(PRECISIONS)} with some of {', '.join(Budget.model_fields)}",
            fix="correct that key; limits are numbers, fractions lie in 0..1",
        ) from exc


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigError(
            f"cannot read the budgets in {path}",
            got=str(exc),
            expected="a TOML file with tables " + ", ".join(PRECISIONS),
            fix="check the path and the syntax",
        ) from exc
