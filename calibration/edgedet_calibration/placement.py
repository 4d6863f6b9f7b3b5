"""Where quantizers go in a captured graph: one placement, whatever the target.

A convolution and the clamp after it (ReLU, ReLU6) are one unit with one output range, because the kernels of
every target compute them as one; nothing is quantized between them. Where a target's convolutions compute any
activation and the addition of a residual as well (`Encoding.fuses_epilogues`), those belong to the unit too;
for the others `lower` has written activations in operators that have integer kernels. Operators that only
move values (slice, concatenation, max pool) share one range over their inputs and output, because the integer
kernels copy bytes. Whatever is not listed here stays float between a dequantization and a quantization:
right, but slow.

Outputs of the graph are float. The reshaping behind the predictors runs on dequantized values; the predictors
of one output share a range, since a converter may move the concatenation in front of the dequantization.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

_aten = torch.ops.aten

CONVOLUTIONS = frozenset({_aten.conv2d.default, _aten.conv2d.padding})
WEIGHTED = CONVOLUTIONS | {_aten.linear.default}
CLAMPS = frozenset(
    {
        _aten.relu.default,
        _aten.relu6.default,
        _aten.hardtanh.default,
        _aten.clamp.default,
        _aten.clamp_min.default,
    }
)
# What a convolution's kernel may compute behind it, and what is an operator of its own otherwise.
ACTIVATIONS = frozenset(
    {_aten.hardsigmoid.default, _aten.hardswish.default, _aten.sigmoid.default, _aten.silu.default}
)
POOLS = frozenset({_aten.adaptive_avg_pool2d.default, _aten.avg_pool2d.default, _aten.mean.dim})
ELEMENTWISE = frozenset({_aten.add.Tensor, _aten.mul.Tensor})
MOVES = frozenset(
    {
        _aten.cat.default,
        _aten.flatten.using_ints,
        _aten.max_pool2d.default,
        _aten.permute.default,
        _aten.reshape.default,
        _aten.slice.Tensor,
        _aten.transpose.int,
        _aten.upsample_bilinear2d.vec,
        _aten.upsample_nearest2d.vec,
        _aten.view.default,
    }
)


@dataclass(frozen=True, slots=True)
class Unit:
    """Operators that one integer kernel computes.

    Attributes:
        kind: "weighted", "elementwise", "activation", "pool" or "move".
        nodes: Names in order; the last one's output is the unit's.
        inputs: Names of the nodes whose values it reads as integers.
    """

    kind: str
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]

    @property
    def output(self) -> str:
        """Name of the node whose value the unit gives."""
        return self.nodes[-1]


@dataclass(frozen=True, slots=True)
class Placement:
    """The units of a graph and the tensors that are quantized for them.

    Attributes:
        units: In the order of the graph.
        ranges: For every quantized tensor, by node name, the name of its range: its own, or a shared one.
    """

    units: tuple[Unit, ...]
    ranges: dict[str, str]

    def dump(self) -> str:
        """One line a unit: kind, operators, inputs and output with the ranges they use."""
        lines = []
        for unit in self.units:
            inputs = ", ".join(f"{name}@{self.ranges[name]}" for name in unit.inputs)
            lines.append(f"{unit.kind}: {' + '.join(unit.nodes)} ({inputs}) -> {self.ranges[unit.output]}")
        return "\n".join(lines) + "\n"


def place(
    graph_module: GraphModule,
    keeps_float: Callable[[str], bool] = lambda _: False,
    *,
    fuses_epilogues: bool = False,
    constants: Collection[str] = (),
) -> Placement:
    """Decide what is quantized.

    Args:
        graph_module: A captured graph with batch normalisation folded.
        keeps_float: Says of a node's name whether its unit is to stay float.
        fuses_epilogues: The target's convolutions add a residual and compute any activation before they
            round, so that nothing is quantized in between.
        constants: Names of constants that elementwise operators read as integers.
    """
    nodes = [n for n in graph_module.graph.nodes if n.op == "call_function" and not keeps_float(n.name)]
    rules = _Rules(keeps_float, fuses_epilogues, frozenset(constants))
    chains = [chain for node in nodes if (chain := _chain(node, rules))]
    fused = {node for chain in chains for node in chain[1:]}
    units = [_unit(chain, rules) for chain in chains if chain[0] not in fused]
    quantized = {name for unit in units for name in (*unit.inputs, unit.output)}
    units += _moves(nodes, quantized)
    order = {node.name: index for index, node in enumerate(graph_module.graph.nodes)}
    units.sort(key=lambda unit: order[unit.output])
    groups = Groups()
    for unit in units:
        for name in (*unit.inputs, unit.output):
            groups.find(name)
        if unit.kind == "move":
            groups.join((*unit.inputs, unit.output))
    for sources in _predictors_of_outputs(graph_module, quantized):
        groups.join(sources)
    names = sorted(groups.parent, key=order.__getitem__)
    return Placement(tuple(units), {name: groups.find(name) for name in names})


@dataclass(frozen=True, slots=True)
class _Rules:
    """The arguments of `place`."""

    keeps_float: Callable[[str], bool]
    fuses_epilogues: bool
    constants: frozenset[str]

    def reads(self, node: object) -> bool:
        """Whether an operator reads this argument as integers: a tensor, or a constant that is one."""
        return isinstance(node, Node) and (node.op != "get_attr" or node.name in self.constants)

    def only_user(self, node: Node) -> Node | None:
        """The one operator that reads a node, if it may be quantized."""
        users = list(node.users)
        return users[0] if len(users) == 1 and not self.keeps_float(users[0].name) else None


def _chain(node: Node, rules: _Rules) -> list[Node]:
    """The operators that one kernel computes, from the one that starts it; empty where nothing starts."""
    if node.target in ACTIVATIONS or node.target in POOLS:
        return [node]
    if not (node.target in WEIGHTED or _is_elementwise(node, rules)):
        return []
    chain = [node]
    following = rules.only_user(node)
    if rules.fuses_epilogues and following is not None and _adds_residual_of(following, node, rules):
        chain.append(following)
        following = rules.only_user(following)
    fusable = CLAMPS | ACTIVATIONS if rules.fuses_epilogues and node.target in WEIGHTED else CLAMPS
    if following is not None and following.target in fusable:
        chain.append(following)
    return chain


def _is_elementwise(node: Node, rules: _Rules) -> bool:
    return node.target in ELEMENTWISE and all(rules.reads(arg) for arg in node.args[:2])


def _adds_residual_of(addition: Node, convolution: Node, rules: _Rules) -> bool:
    """Whether a convolution can take an addition in: where both sides could, the later one does."""
    if addition.target is not _aten.add.Tensor or convolution.target not in WEIGHTED:
        return False
    if not _is_elementwise(addition, rules) or addition.args[0] is addition.args[1]:
        return False
    able = [
        n
        for n in addition.all_input_nodes
        if n.target in WEIGHTED and len(n.users) == 1 and not rules.keeps_float(n.name)
    ]
    return max(able, key=_position) is convolution


def _position(node: Node) -> int:
    return next(index for index, other in enumerate(node.graph.nodes) if other is node)


def _unit(chain: list[Node], rules: _Rules) -> Unit:
    members = set(chain)
    inputs = [n.name for node in chain for n in node.all_input_nodes if rules.reads(n) and n not in members]
    return Unit(_kind(chain[0]), tuple(node.name for node in chain), tuple(dict.fromkeys(inputs)))


def _kind(first: Node) -> str:
    for kind, targets in (("weighted", WEIGHTED), ("activation", ACTIVATIONS), ("pool", POOLS)):
        if first.target in targets:
            return kind
    return "elementwise"


def _moves(nodes: list[Node], quantized: set[str]) -> list[Unit]:
    """Moves between quantized tensors; `quantized` grows by what they pass on."""
    units: dict[str, Unit] = {}
    grown = True
    while grown:  # a move may feed a move: backwards from what is read as integers
        grown = False
        for node in reversed(nodes):
            if node.name in units or node.target not in MOVES or node.name not in quantized:
                continue
            inputs = tuple(dict.fromkeys(n.name for n in node.all_input_nodes))
            units[node.name] = Unit("move", (node.name,), inputs)
            quantized.update(inputs)
            grown = True
    return list(units.values())


def _predictors_of_outputs(graph_module: GraphModule, quantized: set[str]) -> list[tuple[str, ...]]:
    """For every output of the graph, the quantized tensors that reach it through moves alone."""
    output = next(n for n in graph_module.graph.nodes if n.op == "output")
    found = []
    for node in output.all_input_nodes:
        sources: list[str] = []
        pending = [node]
        while pending:
            current = pending.pop()
            if current.name in quantized:
                sources.append(current.name)
            elif current.target in MOVES:
                pending += current.all_input_nodes
        if sources:
            found.append(tuple(sources))
    return found


class Groups:
    """Union-find over node names; a group is named by the name that joined first."""

    def __init__(self) -> None:
        self.parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        """The name of a name's group."""
        root = self.parent.setdefault(name, name)
        while root != self.parent[root]:
            root = self.parent[root]
        self.parent[name] = root
        return root

    def join(self, names: Iterable[str]) -> None:
        """Make one group of the groups of all these names."""
        roots = [self.find(name) for name in names]
        for root in roots[1:]:
            self.parent[self.find(root)] = self.find(roots[0])
