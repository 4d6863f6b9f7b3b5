"""A fake-quantized graph with the quantizers of a few units switched on and all others left out.

The graph is converted once. Its pairs of quantize and dequantize are bypassed unless a unit that is looked at
reads or gives their value, and biases are the float ones elsewhere. What stands before that unit is computed
once per image, in float, and shared by all units.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.node import map_arg

from edgedet.errors import ConfigError
from edgedet.models.capture import Captured, parameter_of
from edgedet_calibration.encodings import Encoding
from edgedet_calibration.equalization import equalized
from edgedet_calibration.placement import WEIGHTED, Unit
from edgedet_calibration.quantize import is_quantizer, placed, quantize
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import Stats

Values = dict[Node, Any]

_aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Layer:
    """What a recipe keeps float by one name.

    Most often that is one unit; for a lowered hard-swish it is the sums and products that stand for it.

    Attributes:
        name: Of a node of the captured graph.
        kind: As in `Unit`.
        units: In the order of the graph.
    """

    name: str
    kind: str
    units: tuple[Unit, ...]


class Isolation:
    """Computes a detector with single layers quantized.

    Weights and biases are not corrected, because their correction depends on all that is quantized.

    Args:
        captured: The float graph.
        stats: Of its tensors.
        recipe: How ranges are chosen; what it keeps float is no layer here.
        encoding: How activations are written.

    Raises:
        ConfigError: The recipe keeps every layer float.
    """

    def __init__(self, captured: Captured, stats: Stats, recipe: Recipe, encoding: Encoding) -> None:
        plain = recipe.model_copy(update={"bias_correction": False, "rounding": "nearest"})
        self.layers = layers_of(captured, plain, encoding)
        if not self.layers:
            raise ConfigError(
                "the recipe quantizes nothing",
                got=f"float_layers {', '.join(recipe.float_layers)}",
                expected="layers that may be quantized",
                fix="take patterns out of float_layers",
            )
        self._graph_module = quantize(captured, stats, plain, encoding, fold_weights=False)
        given: Any = self._graph_module.graph.output_node().args[0]
        names = [output.name for output in captured.spec.outputs]
        self._outputs = {name: _source(node) for name, node in zip(names, given, strict=True)}
        nodes = [node for node in self._graph_module.graph.nodes if node.op != "output"]
        self._nodes = [node for node in nodes if not is_quantizer(node)]
        self._float_biases = _biases(equalized(captured, stats.channel_factors).graph_module)
        self._gates = _gates_without_clamp(captured.graph_module, {node.name for node in nodes})
        self._interpreter = Interpreter(self._graph_module)

    def float_values(self, tensor: Tensor) -> Values:
        """The values of all nodes in float for one image, `[1, 3, h, w]`."""
        values: Values = {}
        self._interpreter.args_iter = iter((tensor,))
        with torch.inference_mode():
            for node in self._nodes:
                values[node] = self._value(node, values, frozenset(), frozenset())
        return values

    def outputs(self, values: Mapping[Node, Any]) -> dict[str, Any]:
        """The raw outputs among the values of all nodes, by name."""
        return {name: values[node].numpy() for name, node in self._outputs.items()}

    def with_layer(self, values: Values, layer: Layer) -> Values:
        """The values of all nodes with one layer quantized.

        Args:
            values: Of `float_values`; nodes that the layer does not reach keep them.
            layer: One of `layers`.
        """
        members = frozenset(name for unit in layer.units for name in unit.nodes)
        given = frozenset(unit.output for unit in layer.units)
        changed: Values = {}
        merged = ChainMap(changed, values)
        with torch.inference_mode():
            for node in self._nodes:
                reached = any(_source(read) in changed for read in node.all_input_nodes)
                if reached or node.name in members:
                    changed[node] = self._value(node, merged, members, given)
        return values | changed

    def _value(
        self, node: Node, values: Mapping[Node, Any], members: Collection[str], given: Collection[str]
    ) -> Any:
        if node.op != "call_function":
            return getattr(self._interpreter, node.op)(node.target, node.args, node.kwargs)

        def read(argument: Node) -> Any:
            source = _source(argument)
            if source is argument or not (node.name in members or source.name in given):
                return values[source]
            return self._rounded(argument, values)

        arguments = list(map_arg(node.args, read))
        if node.name in self._float_biases and node.name not in members:
            arguments[2] = self._float_biases[node.name]
        value = node.target(*arguments, **map_arg(node.kwargs, read))  # type: ignore[operator]
        return value.clamp(0.0, 1.0) if node.name in self._gates else value

    def _rounded(self, dequantize: Node, values: Mapping[Node, Any]) -> Any:
        """The value behind a pair of quantize and dequantize."""
        computed: Values = {}
        for node in (dequantize.args[0], dequantize):
            assert isinstance(node, Node)
            arguments = map_arg(node.args, lambda read: computed[read] if read in computed else values[read])
            computed[node] = node.target(*arguments, **node.kwargs)  # type: ignore[operator]
        return computed[dequantize]


def layers_of(captured: Captured, recipe: Recipe, encoding: Encoding) -> tuple[Layer, ...]:
    """What is quantized, by the names that `Recipe.float_layers` takes, in the order of the graph.

    Units that only move values are none: they round nothing of their own.
    """
    _, _, placement = placed(captured, recipe, encoding)
    names = {node.name for node in captured.graph_module.graph.nodes}
    units: dict[str, list[Unit]] = {}
    for unit in placement.units:
        if unit.kind != "move":
            units.setdefault(_captured_name(unit.nodes[0], names), []).append(unit)
    return tuple(Layer(name, found[0].kind, tuple(found)) for name, found in units.items())


def _captured_name(name: str, names: Collection[str]) -> str:
    """The node that one of the graph in lower operators stands for: lowering extends its name."""
    while name and name not in names:
        name = name.rpartition("_")[0]
    return name


def _source(node: Node) -> Node:
    """What a dequantization reads before its quantization; any other node itself."""
    while is_quantizer(node):
        read = node.args[0]
        assert isinstance(read, Node)
        node = read
    return node


def _biases(graph_module: GraphModule) -> dict[str, Tensor]:
    return {
        node.name: bias
        for node in graph_module.graph.nodes
        if node.target in WEIGHTED
        and len(node.args) > 2
        and (bias := parameter_of(graph_module, node.args[2])) is not None
    }


def _gates_without_clamp(graph_module: GraphModule, kept: Collection[str]) -> set[str]:
    """Convolutions whose clamp to [0, 1] lowering left to their quantization, which may be bypassed here."""
    return {
        node.args[0].name
        for node in graph_module.graph.nodes
        if node.target is _aten.clamp.default and node.name not in kept
    }
