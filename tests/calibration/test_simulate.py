"""The graph that a parity check runs, against the one that the artifacts are written from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch.fx import Graph, GraphModule, Node

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
def test_outputs_are_equal_and_no_quantizer_is_left(
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


Grid = tuple[float, int, int, int, torch.dtype]  # scale, zero point, lowest, highest, type
UNIT: Grid = (1 / 255, 0, 0, 255, torch.uint8)
SHIFTED: Grid = (0.1, 3, -128, 127, torch.int8)
VALUES = torch.cat([torch.linspace(-30.0, 30.0, 1001), torch.tensor([math.inf, -math.inf, 1e38])])


def quantized(graph: Graph, values: Node, grid: Grid) -> Node:
    return graph.call_function(torch.ops.quantized_decomposed.quantize_per_tensor.default, (values, *grid))


def dequantized(graph: Graph, values: Node, grid: Grid) -> Node:
    return graph.call_function(torch.ops.quantized_decomposed.dequantize_per_tensor.default, (values, *grid))


def built(make: Callable[[Graph, Node], tuple[Node, ...]]) -> tuple[GraphModule, GraphModule]:
    """A graph of one input, and what it is made into, whose outputs are equal."""
    graph = Graph()
    graph.output(make(graph, graph.placeholder("x")))
    graph_module = GraphModule(torch.nn.Module(), graph)
    faster = simulated(graph_module)
    for expected, got in zip(graph_module(VALUES), faster(VALUES), strict=True):
        assert torch.equal(expected, got)
    return graph_module, faster


def test_integers_that_another_operator_reads_stay() -> None:
    def make(graph: Graph, x: Node) -> tuple[Node, ...]:
        moved = graph.call_function(torch.ops.aten.flip.default, (quantized(graph, x, SHIFTED), [0]))
        return (dequantized(graph, moved, SHIFTED),)

    assert quantizers(built(make)[1]) == 2


def test_integers_that_are_an_output_stay() -> None:
    assert quantizers(built(lambda graph, x: (quantized(graph, x, SHIFTED),))[1]) == 1


def test_integers_that_are_read_on_another_grid_stay() -> None:
    def make(graph: Graph, x: Node) -> tuple[Node, ...]:
        integers = quantized(graph, x, SHIFTED)
        return dequantized(graph, integers, SHIFTED), dequantized(graph, integers, (0.2, *SHIFTED[1:]))

    assert quantizers(built(make)[1]) == 3


def test_one_operator_serves_all_that_read_the_same_integers() -> None:
    def make(graph: Graph, x: Node) -> tuple[Node, ...]:
        integers = quantized(graph, x, SHIFTED)
        return dequantized(graph, integers, SHIFTED), dequantized(graph, integers, SHIFTED)

    _, faster = built(make)
    assert quantizers(faster) == 0
    assert sum(node.op == "call_function" for node in faster.graph.nodes) == 1


def test_what_is_not_a_number_stays_so() -> None:
    def make(graph: Graph, x: Node) -> tuple[Node, ...]:
        return (dequantized(graph, quantized(graph, x, SHIFTED), SHIFTED),)

    assert built(make)[1](torch.tensor([math.nan]))[0].isnan()


@pytest.mark.parametrize(
    ("clamp", "arguments", "stays"),
    [
        (torch.ops.aten.hardtanh.default, (0.0, 1.0), False),
        (torch.ops.aten.hardtanh.default, (0.0, 0.9), True),
        (torch.ops.aten.hardtanh.default, (0.2, 1.0), True),
        (torch.ops.aten.hardtanh.default, (0.001, 0.999), False),  # within half a step of the ends
        (torch.ops.aten.hardtanh.default, {"min_val": 0.0, "max_val": 0.3}, True),
        (torch.ops.aten.relu.default, (), False),
        (torch.ops.aten.clamp.default, (None, 0.9), True),
    ],
)
def test_a_clamp_stays_where_the_grid_goes_beyond_it(
    clamp: torch._ops.OpOverload, arguments: tuple[float, ...] | dict[str, float], stays: bool
) -> None:
    def make(graph: Graph, x: Node) -> tuple[Node, ...]:
        by_place, by_name = ((), arguments) if isinstance(arguments, dict) else (arguments, {})
        clamped = graph.call_function(clamp, (x, *by_place), by_name)
        return (dequantized(graph, quantized(graph, clamped, UNIT), UNIT),)

    assert clamps(built(make)[1]) == stays


def test_a_clamp_stays_for_those_of_its_readers_that_need_it() -> None:
    def make(graph: Graph, x: Node) -> tuple[Node, ...]:
        clamped = graph.call_function(torch.ops.aten.hardtanh.default, (x, 0.0, 6.0))
        wide = (0.1, 0, 0, 255, torch.uint8)
        grids = (UNIT, wide)
        return (*(dequantized(graph, quantized(graph, clamped, grid), grid) for grid in grids), clamped)

    before, faster = built(make)
    assert (clamps(before), clamps(faster)) == (1, 1)
    assert sum(len(node.users) for node in faster.graph.nodes if node.target in CLAMPS) == 2
