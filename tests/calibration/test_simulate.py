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
from edgedet_calibration.quantize import is_quantizer, quantize
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.simulate import simulated
from edgedet_calibration.stats import Stats


def quantizers(graph_module: GraphModule) -> int:
    return sum(is_quantizer(node) for node in graph_module.graph.nodes)


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
    for image in itertools.islice(open_dataset("builtin", split="test"), 3):
        tensor = torch.from_numpy(preprocess(image.image_bgr, captured.spec.input)[0])
        with torch.inference_mode():
            for expected, got in zip(graph_module(tensor), faster(tensor), strict=True):
                assert torch.equal(expected, got)


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
