"""A fake-quantized graph that gives the same values in less time.

Decomposed quantizers write integers that the next operator reads as floats again, and weights are dequantized
in every run. Here constants are dequantized once, a quantizer with its dequantizations is one operator that
rounds floats to the grid, and a clamp that the grid's ends repeat is gone. What is lost is the integers
themselves, which the targets' converters and comparisons of layers read.
"""

from __future__ import annotations

import copy
import hashlib
import math
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from edgedet_calibration.placement import CLAMPS
from edgedet_calibration.quantize import is_quantizer

# Up to here float32 holds every integer, so that zero points can be left out.
_LARGEST_STEP = 2**24


def simulated(graph_module: GraphModule) -> GraphModule:
    """A copy with equal outputs for every input but NaN, which it keeps; weights are shared."""
    graph = copy.deepcopy(graph_module.graph)
    copied = GraphModule(graph_module, graph)
    _fold_constants(copied)
    _round_in_float(graph)
    graph.eliminate_dead_code()
    graph.lint()
    return GraphModule(copied, graph)  # with those tensors alone that the graph reads


def is_rounding(node: Node) -> bool:
    """Whether a node of a simulated graph puts values on a grid."""
    return node.target is _rounded or is_quantizer(node)


def fingerprint(graph_module: GraphModule) -> str:
    """sha256 of a graph and its tensors: where it is equal, so are the outputs for the same input."""
    digest = hashlib.sha256(graph_module.code.encode())
    tensors = (*graph_module.named_parameters(), *graph_module.named_buffers())
    for name, tensor in sorted(tensors, key=lambda one: one[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _fold_constants(graph_module: GraphModule) -> None:
    """Quantize and dequantize what no input changes."""
    graph = graph_module.graph
    constants = Interpreter(graph_module)
    for node in list(graph.nodes):
        if not is_quantizer(node) or any(one.op != "get_attr" for one in node.all_input_nodes):
            continue
        constants.env = {one: constants.run_node(one) for one in node.all_input_nodes}
        name = f"_constant_{node.name}"
        graph_module.register_buffer(name, constants.run_node(node))
        with graph.inserting_before(node):
            node.replace_all_uses_with(graph.get_attr(name))
        graph.erase_node(node)


def _round_in_float(graph: torch.fx.Graph) -> None:
    """One operator for each quantizer whose integers are read by dequantizations of the same grid alone."""
    for node in list(graph.nodes):
        if not is_quantizer(node, "quantize_per_tensor"):
            continue
        values, scale, zero_point, low, high = node.args[:5]
        grid = scale, low - zero_point, high - zero_point
        if not all(_reads_back(one, node) for one in node.users) or max(map(abs, grid[1:])) > _LARGEST_STEP:
            continue
        with graph.inserting_before(node):
            rounded = graph.call_function(_rounded, (_unclamped(values, *grid), *grid))
        for one in list(node.users):
            one.replace_all_uses_with(rounded)
            graph.erase_node(one)
        graph.erase_node(node)


def _reads_back(node: Node, quantizer: Node) -> bool:
    same = node.args[1:5] == quantizer.args[1:5]
    return is_quantizer(node, "dequantize_per_tensor") and same and not node.kwargs


def _unclamped(values: Node, scale: float, low: int, high: int) -> Node:
    """What a clamp reads, where its bounds round to the ends of the grid or beyond: rounding is monotone."""
    if values.target not in CLAMPS:
        return values
    clamp: Any = values.target
    bounds = clamp(torch.tensor([-math.inf, math.inf]), *values.args[1:], **values.kwargs)
    lowest, highest = bounds.mul(1.0 / scale).round().tolist()
    source = values.args[0]
    assert isinstance(source, Node)
    return source if lowest <= low and high <= highest else values


def _rounded(values: torch.Tensor, scale: float, low: int, high: int) -> torch.Tensor:
    """Values on a grid of steps from `low` to `high` around zero."""
    return values.mul(1.0 / scale).round_().clamp_(low, high).mul_(scale)
