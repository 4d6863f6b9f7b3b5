"""Which layer differs: of artifacts that real runtimes run, whole and with one layer changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from changed_artifact import double_weight_scale, with_changed_artifact, zero_bias

from edgedet import registry
from edgedet.bundle import Bundle
from edgedet.data import open_dataset
from edgedet.parity import ParityRow, load_budgets, run_parity
from edgedet.parity.judge import explanation, judge_outputs
from edgedet.parity.layers import LayerDifference, LayersReport
from edgedet.parity.report import OutputDifference
from edgedet.preprocess import preprocess

RUNTIMES = ("ort", "openvino", "tflite")


def parity_of(bundle: Bundle, runtime: str, *, layers: bool = False) -> ParityRow:
    (row,) = run_parity(
        bundle, open_dataset("builtin", "test"), [runtime], ["int8"], limit=4, layers=layers
    ).rows
    return row


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_layer_computes_what_the_reference_computes_from_the_same_integers(
    full_bundle: Bundle, runtime: str
) -> None:
    row = parity_of(full_bundle, runtime, layers=True)
    assert row.layers is not None
    assert row.layers.quantized > 70
    assert row.layers.missing == 0
    assert row.layers.worst.local_snr_db > 45
    assert max(layer.max_steps or 0 for layer in row.layers.layers) == 1
    assert row.layers.accounts_for_noise == (runtime != "openvino")  # whose sums are read another way
    assert not {"layers", "raw outputs"}.intersection(row.stages_over_budget)
    assert [layer.name for layer in row.layers.layers[-2:]] == ["box_offsets", "class_logits"]
    assert row.layers.layers[1].module == "backbone.conv_stem"


def test_references_compute_the_same_where_only_their_integers_differ(full_bundle: Bundle) -> None:
    references = registry.REFERENCES.load("int8")(full_bundle)
    opened = {name: references.open(full_bundle.artifact(name, "int8")) for name in RUNTIMES}
    computes = {name: reference.computes for name, reference in opened.items()}
    assert computes["ort"] == computes["tflite"] != computes["openvino"]
    image = preprocess(open_dataset("builtin", "test")[0].image_bgr, full_bundle.spec.input)[0]
    outputs = {name: reference.run({"images": image}) for name, reference in opened.items()}
    for name, output in outputs["ort"].items():
        np.testing.assert_array_equal(output, outputs["tflite"][name])
        assert not np.array_equal(output, outputs["openvino"][name])


def test_layers_are_left_alone_where_raw_outputs_agree(full_bundle: Bundle) -> None:
    assert parity_of(full_bundle, "ort").layers is None


def test_a_doubled_weight_scale_in_an_onnx_file_is_named(full_bundle: Bundle, tmp_path: Path) -> None:
    changed = with_changed_artifact(full_bundle, tmp_path / "changed", "ort", "int8", double_weight_scale)
    row = parity_of(changed, "ort")
    assert row.stages_over_budget[:2] == ("layers", "raw outputs")
    assert row.layers is not None
    layer = row.layers.first_over(40.0)
    assert layer is not None
    assert layer.local_snr_db < 15
    assert layer.label == "backbone.blocks.3.0.conv_pwl (conv2d_20)"
    assert any(reason.startswith(f"{layer.label} is the first layer") for reason in row.reasons)
    others = [one for one in row.layers.layers if one is not layer]
    assert min(one.local_snr_db for one in others) > 45  # the fault is that layer's alone
    assert min(one.snr_db for one in others) < 25  # though all behind it suffer


def test_another_scale_of_an_activation_is_named(full_bundle: Bundle, tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    def double(path: Path) -> None:
        model = onnx.load(path)
        graph = model.graph
        node = [node for node in graph.node if node.op_type == "QuantizeLinear"][30]
        (scale,) = (tensor for tensor in graph.initializer if tensor.name == node.input[1])
        scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(2), scale.name))
        onnx.save(model, path)

    row = parity_of(
        with_changed_artifact(full_bundle, tmp_path / "changed", "ort", "int8", double), "ort", layers=True
    )
    assert row.layers is not None
    layer = row.layers.first_over(0.0)
    assert layer is not None
    assert layer.grid is not None
    assert layer.expected_grid is not None
    assert layer.grid[0] == pytest.approx(2 * layer.expected_grid[0])
    assert any(f"{layer.label} has scale" in reason for reason in row.reasons)


def test_a_bias_of_zeros_in_a_tflite_file_is_named(full_bundle: Bundle, tmp_path: Path) -> None:
    changed = with_changed_artifact(full_bundle, tmp_path / "changed", "tflite", "int8", zero_bias)
    row = parity_of(changed, "tflite")
    assert row.stages_over_budget[:2] == ("layers", "raw outputs")
    assert row.layers is not None
    layer = row.layers.first_over(40.0)
    assert layer is not None
    assert layer.module.startswith("backbone.blocks.")
    assert sum(one.local_snr_db < 40 for one in row.layers.layers) == 1


def test_noise_is_explained_where_every_layer_agrees_and_all_are_known() -> None:
    budget = load_budgets().int8

    def report(
        max_steps: float = 1.0,
        *,
        moved: float = 0.01,
        missing: int = 0,
        outputs_snr_db: float = 200.0,
        snr_db: float = 45.0,
    ) -> LayersReport:
        layer = LayerDifference(
            name="conv2d",
            module="stem",
            local_snr_db=snr_db,
            snr_db=20,
            max_steps=max_steps,
            moved_fraction=moved,
            expected_grid=(0.5, 3),
            grid=(0.5, 3),
        )
        return LayersReport(
            images=2, quantized=2, missing=missing, outputs_snr_db=outputs_snr_db, layers=(layer,)
        )

    assert "stem (conv2d) differs most, where 1 % of the values" in explanation(report(), budget)
    assert explanation(report(max_steps=2.0), budget) == ""
    assert explanation(report(missing=1), budget) == ""
    assert explanation(report(outputs_snr_db=60.0), budget) == ""
    assert explanation(None, budget) == ""
    # A kernel that cuts off instead of rounding is one step off in half of all values.
    assert explanation(report(moved=0.5), budget) == ""
    assert report(moved=0.5, snr_db=25.0).first_over(40.0) is not None
    # One step in a tensor of few steps is much noise, and rounding all the same.
    assert report(snr_db=25.0).first_over(40.0) is None
    assert report(max_steps=2.0, snr_db=25.0).first_over(40.0) is not None


@pytest.mark.parametrize(("snr_db", "breaches"), [(25.0, 0), (15.0, 1)])
def test_no_explanation_excuses_outputs_that_are_mostly_noise(snr_db: float, breaches: int) -> None:
    layer = LayerDifference(
        name="conv2d", module="", local_snr_db=45, snr_db=20, max_steps=1, moved_fraction=0.01
    )
    layers = LayersReport(images=1, quantized=1, missing=0, outputs_snr_db=200.0, layers=(layer,))
    output = OutputDifference(name="box_offsets", max_relative_error=0.2, snr_db=snr_db)
    assert len(judge_outputs([output], layers, load_budgets().int8)) == breaches


def test_a_row_whose_noise_is_explained_passes(full_bundle: Bundle, tmp_path: Path) -> None:
    strict = tmp_path / "budgets.toml"
    strict.write_text("[int8]\noutput_min_snr_db = 90.0\n")
    budgets = load_budgets(strict)
    data = open_dataset("builtin", "test")
    (row,) = run_parity(full_bundle, data, ["ort"], ["int8"], budgets, limit=4).rows
    assert row.output_snr_db is not None
    assert row.output_snr_db < 90
    assert "raw outputs" not in row.stages_over_budget
    assert "rounding, added up" in row.explanation
