from __future__ import annotations

from typing import Any

import pytest

from edgedet.errors import BundleError
from edgedet.spec import DetectorSpec, InputSpec, OutputSpec, SsdDecoder, SsdPriors


def spec(**changes: Any) -> DetectorSpec:
    priors = SsdPriors(feature_maps_hw=((2, 2),), scales=(0.2, 0.4), aspect_ratios=((2.0,),))
    given: dict[str, Any] = {
        "name": "d",
        "input": InputSpec(size_hw=(32, 32)),
        "outputs": (
            OutputSpec(name="box_offsets", shape=(1, 16, 4), role="box_offsets"),
            OutputSpec(name="class_logits", shape=(1, 16, 3), role="class_logits"),
        ),
        "decoder": SsdDecoder(priors=priors),
        "labels": ("a", "b"),
    }
    return DetectorSpec(**given | changes)


def test_a_spec_survives_its_json() -> None:
    assert DetectorSpec.from_json(spec().to_json(), source="here") == spec()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"labels":["a","b"]', '"labels":["a"]', "16 priors and 1 labels need outputs"),
        ('"shape":[1,16,4]', '"shape":[1,15,4]', "need outputs"),
        ('"role":"class_logits"', '"role":"box_offsets"', "need outputs"),
        ('"feature_maps_hw":[[2,2]]', '"feature_maps_hw":[[200000,200000]]', "less than or equal to 1024"),
        ('"schema_version":1', '"schema_version":99', "schema_version"),
        ('"name":"d"', '"name":"../../d"', "plain file name"),
        ('"name":"d"', '"name":".."', "plain file name"),
        ('"name":"d"', '"name":"a\\nb"', "plain file name"),
        ('"labels":["a","b"]', '"labels":["a","a"]', "labels: every label is there once, got 'a' more often"),
        ('"std":[58.395', '"std":[0.0', "greater than 0"),
        ('"labels"', '"lables"', "labels: Field required"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused_with_the_place(old: str, new: str, message: str) -> None:
    text = spec().to_json()
    assert old in text
    with pytest.raises(BundleError, match=message):
        DetectorSpec.from_json(text.replace(old, new), source="here")
