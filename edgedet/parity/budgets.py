"""How much an artifact may differ from its reference, as data."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError

from edgedet.errors import ConfigError
from edgedet.spec import PRECISIONS, Precision, Value, first_problem
from edgedet.toml import read_toml

Amount = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]

# The most `threshold_tolerance`: detections are decoded this far below the score threshold, and no further.
MOST_TOLERANCE = 0.2

# The class that stands for every class without a table of its own.
EVERY_CLASS = "*"


class ClassBudget(Value):
    """What one class may cost; a limit that is None is not judged.

    Attributes:
        min_objects: With fewer detections of the reference the class is not judged by its matches, with fewer
            labelled boxes not by its average precision: chance would decide.
        min_matched_fraction: Share of its detections, of both sides, that have a partner.
        min_ap_fraction: Share of the float detector's AP that must be left.
        max_ap_drop_points: Most AP that may be lost, in points.
    """

    min_objects: Annotated[int, Field(ge=1)] = 1
    min_matched_fraction: Fraction | None = None
    min_ap_fraction: Fraction | None = None
    max_ap_drop_points: Amount | None = None

    @property
    def judges(self) -> bool:
        """Whether there is any limit."""
        return bool(self.min_matched_fraction or self.min_ap_fraction) or self.max_ap_drop_points is not None


class BaselineLimits(Value):
    """How much worse than an earlier run a run may be; a limit that is None is not judged.

    Attributes:
        max_map_drop_points: Of mAP.
        max_class_ap_drop_points: Of the AP of one class.
        max_class_matched_drop: Of the share of detections of one class that have a partner.
        max_matched_drop: Of the share of detections that have a partner.
        max_snr_drop_db: Of the signal to noise of the raw outputs.
    """

    max_map_drop_points: Amount | None = None
    max_class_ap_drop_points: Amount | None = None
    max_class_matched_drop: Fraction | None = None
    max_matched_drop: Fraction | None = None
    max_snr_drop_db: Amount | None = None


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
        classes: By name of the class; `EVERY_CLASS` stands for those that are not named.
    """

    input_max_abs: Amount
    output_max_relative_error: Amount | None = None
    output_min_snr_db: float | None = None
    layer_min_snr_db: float | None = None
    matched_iou: Annotated[float, Field(gt=0, le=1)]
    min_matched_fraction: Fraction
    threshold_tolerance: Annotated[float, Field(ge=0, le=MOST_TOLERANCE)]
    max_score_delta: Fraction | None = None
    max_box_px: Amount | None = None
    max_map_delta_points: Amount | None = None
    min_map_fraction: Fraction | None = None
    max_cross_runtime_map_points: Amount | None = None
    classes: dict[str, ClassBudget] = Field(default_factory=dict)

    def of_class(self, label: str) -> ClassBudget:
        """The budget of a class."""
        return self.classes.get(label) or self.classes.get(EVERY_CLASS) or ClassBudget()


class Budgets(Value):
    """One budget a precision, and how much worse than a baseline a run may be."""

    model_config = ConfigDict(populate_by_name=True)

    fp32: Budget
    fp16: Budget
    int8: Budget
    int8_a16: Budget = Field(alias="int8-a16")
    int8_dynamic: Budget = Field(alias="int8-dynamic")
    baseline: BaselineLimits = BaselineLimits()

    def of(self, precision: Precision) -> Budget:
        """The budget of a precision."""
        budget: Budget = getattr(self, precision.replace("-", "_"))
        return budget

    def check_classes(self, labels: Sequence[str]) -> None:
        """Refuse a budget for a class that a detector does not have.

        Args:
            labels: The detector's classes.

        Raises:
            ConfigError: There is one.
        """
        for precision in PRECISIONS:
            if unknown := sorted(self.of(precision).classes.keys() - {EVERY_CLASS, *labels}):
                raise ConfigError(
                    f"the budgets of {precision} name a class that the detector does not have",
                    got=", ".join(unknown),
                    expected=f'some of {", ".join(labels)}, or "{EVERY_CLASS}" for all that are not named',
                    fix=f"correct the name in [{precision}.classes.NAME]",
                )


def load_budgets(path: Path | None = None) -> Budgets:
    """The budgets that come with edgedet, with those of a TOML file over them.

    Raises:
        ConfigError: The file cannot be read, names what does not exist or gives a limit that makes no sense.
    """
    defaults = tomllib.loads(resources.files("edgedet.parity").joinpath("budgets.toml").read_text("utf-8"))
    changes = read_toml(path, "check the path; README has an example") if path else {}
    merged = dict(defaults)
    for name, change in changes.items():
        merged[name] = _changed(merged.get(name, {}), change) if isinstance(change, dict) else change
    try:
        return Budgets.model_validate(merged)
    except ValidationError as exc:
        raise ConfigError(
            f"cannot use the budgets in {path}",
            got=first_problem(exc),
            expected=f"tables {', '.join(PRECISIONS)} with some of {', '.join(Budget.model_fields)}; "
            f"tables PRECISION.classes.NAME with some of {', '.join(ClassBudget.model_fields)}; "
            f"a table baseline with some of {', '.join(BaselineLimits.model_fields)}",
            fix="correct that key; limits are numbers, fractions lie in 0..1",
        ) from exc


def _changed(table: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """One table with another over it; what the table of a class leaves open is as for every class."""
    merged = {**table, **change}
    classes = change.get("classes", {})
    if not isinstance(classes, dict) or not all(isinstance(limits, dict) for limits in classes.values()):
        return merged
    own = dict(table.get("classes", {}))
    every = {**own.get(EVERY_CLASS, {}), **classes.get(EVERY_CLASS, {})}
    if every:
        own[EVERY_CLASS] = every
    own |= {label: {**every, **limits} for label, limits in classes.items() if label != EVERY_CLASS}
    return {**merged, "classes": own} if own else merged
