"""A spec and a model so small that each test can make its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgedet.spec import DetectorSpec, InputSpec, OutputSpec, SsdDecoder, SsdPriors

sys.path.insert(0, str(Path(__file__).parent))  # for passing_model


@pytest.fixture
def spec() -> DetectorSpec:
    """A spec whose outputs have as many elements as the input, so that a model can pass tensors through."""
    shape = (1, 12, 4)
    return DetectorSpec(
        name="passing-through",
        input=InputSpec(size_hw=(4, 4)),
        outputs=(
            OutputSpec(name="box_offsets", shape=shape, role="box_offsets"),
            OutputSpec(name="class_logits", shape=shape, role="class_logits"),
        ),
        decoder=SsdDecoder(
            priors=SsdPriors(feature_maps_hw=((1, 3),), scales=(0.5, 0.9), aspect_ratios=((2.0,),))
        ),
        labels=("Erythrozyt", "<&'é\">", "白血球"),
    )
