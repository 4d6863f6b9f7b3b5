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


def simulated(graph_module: GraphModule) -> GraphModule:
    """A copy with the same outputs, to the bit; weights that it does not change are shared."""
    copied = GraphModule(graph_module, copy.deepcopy(graph_module.graph))
    _fold_constants(copied)
    _round_in_float(copied)
    copied.graph.eliminate_dead_code()
    copied.delete_all_unused_submodules()
    copied.graph.lint()
    copied.recompile()
    return copied


def fingerprint(graph_module: GraphModule) -> str:
    """sha256 of what a graph computes: its operators and its constants."""
    digest = hashlib.sha256(graph_module.code.encode())
    for name, tensor in sorted(
        (*graph_module.named_parameters(), *graph_module.named_buffers()), key=lambda one: one[0]
    ):
        digest.update(name.encode())
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


def _round_in_float(graph_module: GraphModule) -> None:
    """One operator for each quantizer whose integers are read by dequantizations of the same grid alone."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        if not _is(node, "quantize_per_tensor"):
            continue
        readers = list(node.users)
        if not all(_is(one, "dequantize_per_tensor") and one.args[1:5] == node.args[1:5] for one in readers):
            continue
        values, scale, zero_point, low, high = node.args[:5]
        grid = scale, low - zero_point, high - zero_point
        with graph.inserting_before(node):
            rounded = graph.call_function(_rounded, (_unclamped(values, *grid), *grid))
        for one in readers:
            one.replace_all_uses_with(rounded)
            graph.erase_node(one)
        graph.erase_node(node)


def _unclamped(values: Node, scale: float, low: int, high: int) -> Node:
    """What a clamp reads where rounding to a grid gives the same without it."""
    if values.target not in CLAMPS:
        return values
    clamp: Any = values.target
    bounds = clamp(torch.tensor([-math.inf, math.inf]), *values.args[1:])
    lowest, highest = bounds.mul(1.0 / scale).round().tolist()
    source = values.args[0]
    assert isinstance(source, Node)
    return source if lowest <= low and high <= highest else values


def _is(node: Node, name: str) -> bool:
    return is_quantizer(node) and getattr(node.target, "_opname", "") == name


def _rounded(values: torch.Tensor, scale: float, low: int, high: int) -> torch.Tensor:
    """Values on a grid of steps from `low` to `high` around zero.

    A zero point shifts integers that float32 holds exactly, so that it can be left out on both sides.
    """
    return values.mul(1.0 / scale).round_().clamp_(low, high).mul_(scale)
