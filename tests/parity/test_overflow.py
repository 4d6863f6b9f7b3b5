"""Sums that overflow are named where an artifact leaves its budget on a processor that saturates."""

from __future__ import annotations

import pytest

from edgedet.bundle import Bundle
from edgedet.errors import MissingExtraError
from edgedet.parity import overflow
from edgedet.parity.judge import Breach, with_saturation
from edgedet.parity.overflow import overflow_reason


def test_the_reason_names_layers_sums_and_what_mends_them(int8_bundle: Bundle) -> None:
    reason = overflow_reason(int8_bundle, int8_bundle.artifact("ort", "int8"))
    assert "no VNNI: 1 of 1 layers can overflow (the layer (|w1| + |w2| = 129))" in reason
    assert "Export again" in reason
    assert "`edgedet inspect`" in reason


def test_what_was_trained_in_8_bits_is_to_be_trained_again(int8_bundle: Bundle) -> None:
    artifact = int8_bundle.artifact("ort", "int8")
    assert artifact.quantization is not None
    learned = artifact.quantization.model_copy(update={"observer": "learned"})
    reason = overflow_reason(int8_bundle, artifact.model_copy(update={"quantization": learned}))
    assert "Train it in 8 bits and export it again" in reason


def test_there_is_none_for_floats_and_where_nothing_here_reads_the_file(
    int8_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert overflow_reason(int8_bundle, int8_bundle.artifact("ort", "fp32")) == ""

    def missing(*_: object) -> None:
        raise MissingExtraError("the runtime is not installed", fix="pip install it")

    monkeypatch.setattr(overflow, "prove_artifact", missing)
    assert overflow_reason(int8_bundle, int8_bundle.artifact("ort", "int8")) == ""


def test_it_stands_behind_the_first_stage_that_sums_can_change() -> None:
    breaches = [Breach("input tensor", "a"), Breach("raw outputs", "b"), Breach("mAP", "c")]
    found = with_saturation(breaches, "sums overflow")
    assert [(one.stage, one.reason) for one in found] == [
        ("input tensor", "a"),
        ("raw outputs", "b"),
        ("raw outputs", "sums overflow"),
        ("mAP", "c"),
    ]
    assert with_saturation(breaches, "") == breaches
    assert with_saturation(breaches[:1], "sums overflow") == breaches[:1]
