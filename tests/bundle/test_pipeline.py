"""What a detector refuses rather than to answer with nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import edgedet
from edgedet.bundle import Bundle
from edgedet.errors import UsageError, VendorError
from edgedet.pipeline import Pipeline

IMAGE = np.full((64, 64, 3), 128, np.uint8)


@pytest.fixture
def detector(full_bundle: Bundle) -> Iterator[Pipeline]:
    with edgedet.load(full_bundle.root, runtime="ort", precision="fp32") as opened:
        yield opened


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["box_offsets", "class_logits"])
def test_outputs_that_are_no_numbers_are_an_error_and_not_no_objects(
    detector: Pipeline, monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    run = detector.runtime.run

    def faulty(feeds: Any) -> dict[str, Any]:
        outputs = {key: array.copy() for key, array in run(feeds).items()}
        outputs[name].flat[-1] = value
        return outputs

    monkeypatch.setattr(detector.runtime, "run", faulty)
    with pytest.raises(
        VendorError, match=f"ort gave outputs that are not finite; got NaN or infinity in {name}: 1 of"
    ):
        detector(IMAGE)


@pytest.mark.parametrize("name", ["score_threshold", "iou_threshold"])
@pytest.mark.parametrize("value", [50, 1.01, -0.01, -1, math.nan, math.inf])
def test_a_threshold_that_is_no_share_is_refused(detector: Pipeline, name: str, value: float) -> None:
    thresholds: dict[str, Any] = {name: value}
    with pytest.raises(UsageError, match=f"{name} cannot be used; got {value}; expected 0 to 1"):
        detector(IMAGE, **thresholds)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5)])
def test_a_share_is_taken(detector: Pipeline, value: float) -> None:
    detector(IMAGE, score_threshold=value, iou_threshold=value)
