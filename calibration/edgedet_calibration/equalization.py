"""Cross-layer equalization: channels of one tensor brought to the same range, at no cost.

A channel may leave one convolution divided by a factor if the next one multiplies it again: clip(x, 0) of
x / s is clip(x, 0) / s for s > 0. With factors that give both weights the same range in that channel, one
scale for a whole tensor wastes least (Nagel et al., Data-Free Quantization, ICCV 2019, section 4.1). ReLU6
and hard-swish are not homogeneous: scaled, they would compute something else, and pairs around them are left
as they are. Factors follow from the weights alone, so that a bundle's checkpoint and recipe give them again.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgedet.models.capture import Captured, parameter_of
from edgedet_calibration.recipe import Recipe

_aten = torch.ops.aten

_CONVOLUTIONS = (_aten.conv2d.default, _aten.conv2d.padding)
# Each sweep passes ranges on by one pair; chains of pairs settle within a few.
_SWEEPS = 20
_SETTLED = 1e-3
# A channel of next to nothing is no reason to leave float32's precision.
_LARGEST_FACTOR = 2.0**10


@dataclass(frozen=True, slots=True)
class Pair:
    """Two convolutions between which channels can be scaled: by node name, in the order of the graph."""

    first: str
    second: str


def quantizable(captured: Captured, recipe: Recipe) -> Captured:
    """The float graph that a recipe's calibration and quantization start from."""
    return equalized(captured) if recipe.equalization else captured


def equalized(captured: Captured) -> Captured:
    """A copy that computes the same with equalized weights."""
    graph_module = copy.deepcopy(captured.graph_module)
    nodes = {node.name: node for node in graph_module.graph.nodes}
    pairs = [(nodes[pair.first], nodes[pair.second]) for pair in pairs_of(graph_module)]
    for _ in range(_SWEEPS):
        factors = [_equalize(graph_module, first, second) for first, second in pairs]
        if all(float((factor - 1).abs().max()) < _SETTLED for factor in factors):
            break
    return Captured(graph_module, captured.spec)


def pairs_of(graph_module: GraphModule) -> tuple[Pair, ...]:
    """Convolutions that read nothing but another's value, alone, past a ReLU or directly."""
    readers = Counter(str(node.target) for node in graph_module.graph.nodes if node.op == "get_attr")
    pairs = []
    for node in graph_module.graph.nodes:
        if node.target not in _CONVOLUTIONS:
            continue
        second = _only_reader(node)
        if second is not None and second.target is _aten.relu.default:
            second = _only_reader(second)
        if second is None or second.target not in _CONVOLUTIONS or _groups(second) is None:
            continue
        if all(_is_own(graph_module, argument, readers) for argument in (*node.args[1:3], second.args[1])):
            pairs.append(Pair(node.name, second.name))
    return tuple(pairs)


def _only_reader(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_own(graph_module: GraphModule, argument: object, readers: Counter[str]) -> bool:
    """Whether a weight or bias is a stored tensor that one operator reads; a missing bias is no matter."""
    if argument is None:
        return True
    if parameter_of(graph_module, argument) is None:
        return False
    assert isinstance(argument, Node)
    return readers[str(argument.target)] == 1 and len(argument.users) == 1


def _groups(convolution: Node) -> int | None:
    """1, or the number of channels of a depthwise convolution; None for groups in between."""
    groups = convolution.args[6] if len(convolution.args) > 6 else convolution.kwargs.get("groups", 1)
    assert isinstance(groups, int)
    source = convolution.args[0]
    assert isinstance(source, Node)
    return groups if groups in (1, source.meta["val"].shape[1]) else None


def _equalize(graph_module: GraphModule, first: Node, second: Node) -> Tensor:
    """Scale one pair in place; returns what each channel was divided by, `[channels]`."""
    weight, reader = (parameter_of(graph_module, node.args[1]) for node in (first, second))
    assert weight is not None
    assert reader is not None
    bias = parameter_of(graph_module, first.args[2]) if len(first.args) > 2 else None
    depthwise = _groups(second) != 1
    given = weight.detach().double().abs().flatten(1).amax(1)
    read = reader.detach().double().abs().transpose(0, 0 if depthwise else 1).flatten(1).amax(1)
    factor = (given / read).sqrt()
    factor = torch.where((given > 0) & (read > 0), factor, torch.ones_like(factor))
    factor = factor.clamp(1 / _LARGEST_FACTOR, _LARGEST_FACTOR)
    with torch.no_grad():
        weight.copy_(weight.double() / factor.reshape(-1, 1, 1, 1))
        if bias is not None:
            bias.copy_(bias.double() / factor)
        reader.copy_(reader.double() * factor.reshape((-1, 1, 1, 1) if depthwise else (1, -1, 1, 1)))
    return factor
