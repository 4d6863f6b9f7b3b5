from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from edgedet.data import open_dataset
from edgedet.errors import ConfigError
from edgedet.models.capture import Captured, parameter_of
from edgedet.preprocess import preprocess
from edgedet_calibration.encodings import ENCODINGS
from edgedet_calibration.images import CalibrationImages
from edgedet_calibration.placement import CLAMPS, WEIGHTED, Placement, place
from edgedet_calibration.quantize import quant_params, quantize
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import Stats

QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default


def operators(graph_module: torch.fx.GraphModule) -> Counter[object]:
    return Counter(node.target for node in graph_module.graph.nodes if node.op == "call_function")


def test_the_encodings_write_the_same_ranges(placement: Placement, stats: Stats, recipe: Recipe) -> None:
    unsigned, signed = (
        quant_params(placement, stats, recipe, ENCODINGS[name]) for name in ("onnxruntime", "tflite")
    )
    for name, params in unsigned.items():
        assert signed[name].scale == params.scale
        assert signed[name].zero_point == params.zero_point - 128


def test_nothing_is_quantized_between_a_convolution_and_its_clamp(
    captured: Captured, stats: Stats, recipe: Recipe
) -> None:
    graph = quantize(captured, stats, recipe, ENCODINGS["onnxruntime"]).graph
    clamps = [node for node in graph.nodes if node.target in CLAMPS]
    assert clamps
    assert all(node.args[0].target in WEIGHTED for node in clamps)


def test_every_convolution_reads_integers_in_every_encoding(
    captured: Captured, stats: Stats, recipe: Recipe
) -> None:
    for encoding in ENCODINGS.values():
        for node in quantize(captured, stats, recipe, encoding).graph.nodes:
            if node.target in WEIGHTED:
                assert all("dequantize" in str(source.target) for source in node.all_input_nodes[:2])


def test_where_kernels_add_residuals_themselves_nothing_is_quantized_before_the_addition(
    captured: Captured, stats: Stats, recipe: Recipe
) -> None:
    additions = operators(captured.graph_module)[torch.ops.aten.add.Tensor]
    assert additions > 0
    counts = {}
    for name, encoding in ENCODINGS.items():
        graph_module = quantize(captured, stats, recipe, encoding)
        counts[name] = operators(graph_module)[QUANTIZE]
        sources = [
            source.target
            for node in graph_module.graph.nodes
            if node.target is torch.ops.aten.add.Tensor
            for source in node.all_input_nodes
        ]
        assert sum(target in WEIGHTED for target in sources) == (additions if encoding.fuses_epilogues else 0)
    assert counts["onnxruntime"] == counts["tflite"] == counts["openvino"] + additions
    assert counts["openvino"] == counts["tensorrt"]


def test_biases_lie_on_the_grid_of_the_integer_sums(captured: Captured, stats: Stats, recipe: Recipe) -> None:
    graph_module = quantize(captured, stats, recipe, ENCODINGS["onnxruntime"])
    node = next(node for node in graph_module.graph.nodes if node.target in WEIGHTED)
    activation, weight = node.args[0], node.args[1]
    scale = activation.args[1] * parameter_of(graph_module, weight.args[1]).double()
    steps = parameter_of(graph_module, node.args[2]).double() / scale
    assert steps.abs().max() > 1
    assert (steps - steps.round()).abs().max() < 1e-2


def test_the_fake_quantized_graph_stays_close_to_the_float_graph(
    captured: Captured, stats: Stats, recipe: Recipe
) -> None:
    image = next(iter(open_dataset("builtin", split="test")))
    tensor = torch.from_numpy(preprocess(image.image_bgr, captured.spec.input)[0])
    with torch.inference_mode():
        wanted = captured.graph_module(tensor)
        for encoding in ENCODINGS.values():
            given = quantize(captured, stats, recipe, encoding)(tensor)
            for reference, output in zip(wanted, given, strict=True):
                noise = (reference - output).square().mean()
                assert 10 * torch.log10(reference.square().mean() / noise) > 12


def test_a_layer_that_the_recipe_names_stays_float(captured: Captured, stats: Stats) -> None:
    first = place(captured.graph_module).units[0].nodes[0]
    recipe = Recipe(images=6, bias_correction=False, rounding="nearest", float_layers=(first,))
    graph = quantize(captured, stats, recipe, ENCODINGS["onnxruntime"]).graph
    node = next(node for node in graph.nodes if node.target in WEIGHTED)
    assert node.args[0].op == "placeholder"
    assert not any("dequantize" in str(source.target) for source in node.all_input_nodes)


def test_calibration_is_the_same_bit_for_bit_when_repeated(
    captured: Captured, placement: Placement, stats: Stats, calibration: CalibrationImages
) -> None:
    from edgedet_calibration.collect import collect

    again = collect(captured, placement, calibration)
    assert again == stats
    assert np.all([tensor.low <= tensor.high for tensor in again.tensors.values()])


def test_the_bias_of_a_channel_without_weights_survives_quantization(
    captured: Captured, recipe: Recipe, calibration: CalibrationImages
) -> None:
    import copy

    from edgedet_calibration.collect import collect

    graph_module = copy.deepcopy(captured.graph_module)
    first = next(node for node in graph_module.graph.nodes if node.target in WEIGHTED)
    weight, bias = (parameter_of(graph_module, first.args[i]) for i in (1, 2))
    with torch.no_grad():
        weight[0] = 0
        bias[0] = 3.0
    dead = Captured(graph_module, captured.spec)
    stats = collect(dead, place(graph_module), calibration)
    for encoding in ENCODINGS.values():
        quantized = quantize(dead, stats, recipe, encoding)
        node = next(node for node in quantized.graph.nodes if node.target in WEIGHTED)
        assert parameter_of(quantized, node.args[2])[0] == pytest.approx(3.0, rel=1e-3)


def test_a_recipe_that_names_no_layer_of_the_detector_is_refused(captured: Captured, tmp_path: Path) -> None:
    names = [node.name for node in captured.graph_module.graph.nodes]
    Recipe(float_layers=("conv2d*",)).check_names(names)
    with pytest.raises(ConfigError, match="does not have"):
        Recipe(float_layers=("conv3d*",)).check_names(names)
    path = tmp_path / "recipe.toml"
    recipe = Recipe(float_layers=('odd"name',), observer="mse")
    path.write_text(recipe.to_toml())
    assert Recipe.load(path) == recipe
