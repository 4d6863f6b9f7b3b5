"""The graph that a parity check runs, against the one that the artifacts are written from."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.fx import GraphModule

from edgedet.data import open_dataset
from edgedet.models.capture import Captured
from edgedet.preprocess import preprocess
from edgedet_calibration.encodings import ENCODINGS
from edgedet_calibration.placement import CLAMPS
from edgedet_calibration.quantize import is_quantizer, quantize
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.simulate import fingerprint, simulated
from edgedet_calibration.stats import Stats


def quantizers(graph_module: GraphModule) -> int:
    return sum(is_quantizer(node) for node in graph_module.graph.nodes)


def clamps(graph_module: GraphModule) -> int:
    return sum(node.target in CLAMPS for node in graph_module.graph.nodes)


@pytest.mark.parametrize("fold_weights", [True, False])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_outputs_are_the_same_to_the_bit_and_no_quantizer_is_left(
    captured: Captured, stats: Stats, recipe: Recipe, encoding: str, fold_weights: bool
) -> None:
    graph_module = quantize(captured, stats, recipe, ENCODINGS[encoding], fold_weights=fold_weights)
    before = quantizers(graph_module)
    faster = simulated(graph_module)
    assert quantizers(faster) == 0
    assert quantizers(graph_module) == before > 0, "the graph itself is changed"
    symmetric = ENCODINGS[encoding].symmetric  # whose grids go below zero
    assert (clamps(faster) < clamps(graph_module)) == (not symmetric), "most repeat the ends of a grid"
    for image in itertools.islice(open_dataset("builtin", split="test"), 3):
        tensor = torch.from_numpy(preprocess(image.image_bgr, captured.spec.input)[0])
        with torch.inference_mode():
            for expected, got in zip(graph_module(tensor), faster(tensor), strict=True):
                assert torch.equal(expected, got)


def test_encodings_that_differ_in_their_integers_alone_compute_the_same(
    captured: Captured, stats: Stats, recipe: Recipe
) -> None:
    def computed(name: str) -> str:
        return fingerprint(simulated(quantize(captured, stats, recipe, ENCODINGS[name])))

    assert computed("onnxruntime") == computed("tflite"), "the one unsigned, the other signed"
    assert len({computed(name) for name in ("tflite", "openvino", "tensorrt", "tflite-16x8")}) == 4
    changed = simulated(quantize(captured, stats, recipe, ENCODINGS["tflite"]))
    next(changed.parameters()).data.view(-1)[0] += 1
    assert fingerprint(changed) != computed("tflite")


def test_integers_that_another_operator_reads_stay() -> None:
    graph = torch.fx.Graph()
    grid = (0.1, 3, -128, 127, torch.int8)
    quantized = graph.call_function(
        torch.ops.quantized_decomposed.quantize_per_tensor.default, (graph.placeholder("x"), *grid)
    )
    moved = graph.call_function(torch.ops.aten.permute.default, (quantized, [1, 0]))
    graph.output(
        graph.call_function(torch.ops.quantized_decomposed.dequantize_per_tensor.default, (moved, *grid))
    )
    graph_module = GraphModule(torch.nn.Module(), graph)
    values = torch.linspace(-30.0, 30.0, 12).reshape(3, 4)
    faster = simulated(graph_module)
    assert quantizers(faster) == 2
    assert torch.equal(faster(values), graph_module(values))


@pytest.mark.parametrize(
    ("clamp", "bounds", "stays"),
    [
        (torch.ops.aten.hardtanh.default, (0.0, 1.0), False),
        (torch.ops.aten.hardtanh.default, (0.0, 0.9), True),
        (torch.ops.aten.hardtanh.default, (0.2, 1.0), True),
        (torch.ops.aten.relu.default, (), False),
        (torch.ops.aten.clamp.default, (None, 0.9), True),
    ],
)
def test_a_clamp_stays_where_the_grid_goes_beyond_it(
    clamp: torch._ops.OpOverload, bounds: tuple[float, ...], stays: bool
) -> None:
    grid = (1 / 255, 0, 0, 255, torch.uint8)
    graph = torch.fx.Graph()
    clamped = graph.call_function(clamp, (graph.placeholder("x"), *bounds))
    quantized = graph.call_function(
        torch.ops.quantized_decomposed.quantize_per_tensor.default, (clamped, *grid)
    )
    graph.output(
        graph.call_function(torch.ops.quantized_decomposed.dequantize_per_tensor.default, (quantized, *grid))
    )
    graph_module = GraphModule(torch.nn.Module(), graph)
    faster = simulated(graph_module)
    assert clamps(faster) == stays
    values = torch.linspace(-2.0, 2.0, 1001)
    assert torch.equal(faster(values), graph_module(values))
