"""What is exported is proved to be exact on every x86 processor, or the layers are named that are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgedet.bundle import Bundle, open_bundle
from edgedet.data import open_dataset
from edgedet.embedded import RT_INFO_WEIGHTS
from edgedet.errors import VerificationError
from edgedet.proof import prove, prove_artifact
from edgedet.spec import DetectorSpec, QuantizationSpec
from edgedet_calibration import weight_scales
from edgedet_calibration.recipe import Recipe
from edgedet_export.exporter import ExportReport, ExportRequest, export_bundle
from edgedet_export.verify import check_sums

Layer = Callable[[Path, int, int], None]


def export(checkpoint: Path, output: Path, targets: str = "onnx", **recipe: object) -> ExportReport:
    """In INT8 and to nearest, which is quick."""
    chosen = Recipe.model_validate(
        {"images": 2, "rounding": "nearest", "bias_correction": False, "equalization": False, **recipe}
    )
    images = open_dataset("builtin", split="val")
    names = tuple(targets.split())
    return export_bundle(
        ExportRequest(checkpoint, output, names, ("int8",), calibration=images, recipe=chosen)
    )


@pytest.fixture(scope="module")
def safe(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A trained detector, exported as is usual."""
    path = tmp_path_factory.mktemp("sums") / "safe"
    report = export(trained, path, "onnx openvino")
    assert not [warning for warning in report.warnings if "VNNI" in warning]
    return open_bundle(path)


def plant_onnx(source: Path, path: Path) -> str:
    """Give one output of the last convolution a pair that overflows; returns the convolution's name."""
    import onnx

    model = onnx.load(source)
    node = [node for node in model.graph.node if node.op_type == "Conv"][-1]
    (dequantization,) = (one for one in model.graph.node if one.output[0] == node.input[1])
    (tensor,) = (one for one in model.graph.initializer if one.name == dequantization.input[0])
    weight = onnx.numpy_helper.to_array(tensor).copy()
    weight[0, :2, 0, 0] = -100, -29
    tensor.CopyFrom(onnx.numpy_helper.from_array(weight, tensor.name))
    onnx.save(model, path)
    return str(node.name)


def plant_openvino(source: Path, path: Path) -> str:
    """The same in an OpenVINO model."""
    import openvino

    model = openvino.Core().read_model(source)
    node = [node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"][-1]
    constant = node.input_value(1).get_node()
    while constant.get_type_name() != "Constant":
        constant = constant.input_value(0).get_node()
    weight = np.array(constant.data)
    weight[0, :2, 0, 0] = -100, -29
    planted = openvino.opset13.constant(weight)
    for reader in constant.output(0).get_target_inputs():
        reader.replace_source_output(planted.output(0))
    model.set_rt_info("", list(RT_INFO_WEIGHTS))
    openvino.save_model(model, path, compress_to_fp16=False)
    return str(node.get_friendly_name())


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


@pytest.mark.parametrize("runtime", ["ort", "openvino"])
def test_what_is_exported_is_exact_until_one_pair_overflows(
    safe: Bundle, tmp_path: Path, runtime: str
) -> None:
    artifact = safe.artifact(runtime, "int8")
    assert artifact.quantization is not None
    assert artifact.quantization.pair_safe
    proof = prove_artifact(safe, artifact)
    assert proof is not None
    assert proof.is_exact
    assert proof.layers > 40
    source = safe.path_of(artifact)
    path = tmp_path / source.name
    name = (plant_onnx if runtime == "ort" else plant_openvino)(source, path)
    planted = prove(runtime, path)
    assert planted is not None
    assert [(one.layer, one.channels, one.largest) for one in planted.overflows] == [(name, 1, 129)]
    assert planted.layers == proof.layers
    with pytest.raises(VerificationError, match="exact on every x86") as caught:
        check_sums(path, runtime, safe.spec_of(artifact))
    assert caught.value.got.startswith(f"{name}: |w1| + |w2| up to 129 in 1 channels")


def test_a_recipe_without_pair_safe_weights_is_exported_with_a_warning(trained: Path, tmp_path: Path) -> None:
    report = export(trained, tmp_path / "b", pair_safe=False)
    named = [warning.split(" ")[0] for warning in report.warnings if "VNNI" in warning]
    assert named == ["int8/model.onnx"]


def test_an_export_whose_weights_are_not_what_was_promised_fails(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest_steps = weight_scales.largest_steps
    monkeypatch.setattr(
        weight_scales, "largest_steps", lambda weight, **_: largest_steps(weight, pair_safe=False)
    )
    with pytest.raises(VerificationError, match=r"int8/model\.onnx is not exact on every x86"):
        export(trained, tmp_path / "b")
    assert not (tmp_path / "b").exists()
