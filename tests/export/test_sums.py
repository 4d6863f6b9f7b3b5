"""What is exported is proved to be exact on every x86 processor, or the layers are named that are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgedet.bundle import open_bundle
from edgedet.errors import VerificationError
from edgedet.spec import DetectorSpec, QuantizationSpec
from edgedet_export.verify import check_sums

Layer = Callable[[Path, int, int], None]


def spec_of(bundle: Path, *, pair_safe: bool) -> DetectorSpec:
    how = QuantizationSpec(
        encoding="onnxruntime", observer="minmax", calibration_sha256="", pair_safe=pair_safe
    )
    return open_bundle(bundle).spec.model_copy(update={"precision": "int8", "quantization": how})


def test_a_pair_that_overflows_is_refused_where_none_should(
    bundle: Path, tmp_path: Path, int8_layer: Layer
) -> None:
    path = tmp_path / "model.onnx"
    int8_layer(path, 100, 29)
    with pytest.raises(VerificationError, match="exact on every x86") as caught:
        check_sums(path, "ort", spec_of(bundle, pair_safe=True))
    assert "the layer: |w1| + |w2| up to 129 in 1 channels" in caught.value.got
    assert "128 at most" in caught.value.expected


def test_a_pair_that_overflows_is_a_warning_where_nothing_was_promised(
    bundle: Path, tmp_path: Path, int8_layer: Layer
) -> None:
    path = tmp_path / "model.onnx"
    int8_layer(path, 100, 29)
    warning = check_sums(path, "ort", spec_of(bundle, pair_safe=False))
    assert warning.startswith("int8/model.onnx loses accuracy on x86 processors without VNNI")
    assert "the layer (|w1| + |w2| = 129)" in warning


@pytest.mark.parametrize("pair_safe", [True, False])
def test_no_word_where_no_pair_overflows(
    bundle: Path, tmp_path: Path, int8_layer: Layer, pair_safe: bool
) -> None:
    path = tmp_path / "model.onnx"
    int8_layer(path, 100, 28)
    assert check_sums(path, "ort", spec_of(bundle, pair_safe=pair_safe)) == ""


def test_weights_that_cannot_be_read_are_refused_where_exactness_was_promised(
    bundle: Path, tmp_path: Path, int8_layer: Layer
) -> None:
    import onnx

    path = tmp_path / "model.onnx"
    int8_layer(path, 100, 28)
    model = onnx.load(path)
    (weight,) = (one for one in model.graph.initializer if one.name == "w")
    model.graph.initializer.remove(weight)
    onnx.save(model, path)
    with pytest.raises(VerificationError, match="exact on every x86") as caught:
        check_sums(path, "ort", spec_of(bundle, pair_safe=True))
    assert "the layer: cannot tell" in caught.value.got
    assert "(the layer)" in check_sums(path, "ort", spec_of(bundle, pair_safe=False))


def test_litert_does_not_saturate(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="the tflite extra is not installed")
    path = tmp_path / "model.tflite"
    path.write_bytes(b"not read")
    assert check_sums(path, "tflite", spec_of(bundle, pair_safe=True)) == ""
