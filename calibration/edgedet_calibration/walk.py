"""Run a graph over several images, one operator at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node


class Walk:
    """The values of a graph for several images; those that nothing reads any more are dropped.

    Args:
        graph_module: A graph with one input.
        tensors: The images, `[1, 3, h, w]`; what is alive between two operators is held for all of them.

    Attributes:
        nodes: Of the graph, in order.
    """

    def __init__(self, graph_module: GraphModule, tensors: Sequence[Tensor]) -> None:
        self.nodes: list[Node] = list(graph_module.graph.nodes)
        self._next = 0
        self._dead_after = _last_readers(self.nodes)
        self._alike = _independent_of_inputs(self.nodes)
        self._interpreters = [Interpreter(graph_module) for _ in tensors]
        for interpreter, tensor in zip(self._interpreters, tensors, strict=True):
            interpreter.args_iter = iter((tensor,))
            interpreter.env = {}

    def run(self, node: Node, weight: Tensor | None = None) -> list[Any]:
        """The value of a node for each image, all before it being kept.

        Args:
            node: Of the graph.
            weight: In the place of its second argument.
        """
        if node in self._alike and self._interpreters:
            return [self._interpreters[0].run_node(node)] * len(self._interpreters)
        if weight is None:
            return [interpreter.run_node(node) for interpreter in self._interpreters]
        values = []
        for interpreter in self._interpreters:
            args, kwargs = interpreter.fetch_args_kwargs_from_env(node)
            values.append(node.target(args[0], weight, *args[2:], **kwargs))  # type: ignore[operator]
        return values

    def keep(self, node: Node, values: Sequence[Any]) -> None:
        """Let the nodes behind read these values."""
        for interpreter, value in zip(self._interpreters, values, strict=True):
            interpreter.env[node] = value
            for dead in self._dead_after.get(node, ()):
                del interpreter.env[dead]
        self._next = self.nodes.index(node, self._next) + 1

    def advance_to(self, name: str) -> Node:
        """Run and keep all nodes before the one of that name, and return that."""
        while self.nodes[self._next].name != name:
            node = self.nodes[self._next]
            self.keep(node, self.run(node))
        return self.nodes[self._next]

    def holds(self, node: Node) -> bool:
        """Whether the values of a node are there: it ran, and something will still read them."""
        return all(node in interpreter.env for interpreter in self._interpreters)

    def values(self, node: Node) -> list[Any]:
        """Those of a node that `holds` is true of."""
        return [interpreter.env[node] for interpreter in self._interpreters]


def _independent_of_inputs(nodes: Sequence[Node]) -> set[Node]:
    """Weights and what is computed from them alone: one value serves all images."""
    alike: set[Node] = set()
    for node in nodes:
        if node.op == "get_attr" or (node.op == "call_function" and alike.issuperset(node.all_input_nodes)):
            alike.add(node)
    return alike


def _last_readers(nodes: Sequence[Node]) -> dict[Node, list[Node]]:
    """For each node, those whose values nothing behind it reads."""
    last: dict[Node, Node] = {}
    for node in nodes:
        for source in node.all_input_nodes:
            last[source] = node
    readers: dict[Node, list[Node]] = {}
    for source, reader in last.items():
        readers.setdefault(reader, []).append(source)
    return readers
