"""What became of every quantized tensor of an artifact: seen, chosen, written."""

from __future__ import annotations

from torch.fx import Node

from edgedet.models.capture import parameter_of
from edgedet.spec import Value
from edgedet_calibration.encodings import Encoding
from edgedet_calibration.placement import WEIGHTED
from edgedet_calibration.quantize import Plan
from edgedet_calibration.stats import Stats


class QuantizedWeight(Value):
    """The int8 weight of a unit, whose zero points are 0.

    Attributes:
        node: Name of the convolution or linear operator that reads it.
        channels: How many outputs it has.
        scales: One for each of them, or one for all.
    """

    node: str
    channels: int
    scales: tuple[float, ...]


class QuantizedTensor(Value):
    """One activation: real = (integer - zero_point) * scale.

    Attributes:
        name: Of its node in the captured graph.
        kind: Of the unit that gives it; "input" or "constant" for what none computes, "float" for what comes
            from a layer that stays float.
        seen: Smallest and largest value in the calibration; None where the operator fixes the range.
        range: What the observer chose, or what the operator fixes; the union for tensors that share one.
        scale: Of the integers.
        zero_point: The integer of 0.
        weight: Of the unit, where it has one.
    """

    name: str
    kind: str
    seen: tuple[float, float] | None
    range: tuple[float, float]
    scale: float
    zero_point: int
    weight: QuantizedWeight | None = None


class QuantizationTable(Value):
    """Every quantized tensor in the terms of one encoding, in the order of the graph."""

    encoding: str
    tensors: tuple[QuantizedTensor, ...]


def quantization_table(planned: Plan, stats: Stats, encoding: Encoding) -> QuantizationTable:
    """The table of a plan."""
    nodes = {node.name: node for node in planned.graph_module.graph.nodes}
    units = {unit.output: unit for unit in planned.placement.units}
    kinds = {"placeholder": "input", "get_attr": "constant"}
    order = {name: index for index, name in enumerate(nodes)}
    tensors = []
    for name in sorted(planned.params, key=order.__getitem__):
        unit, params = units.get(name), planned.params[name]
        tensors.append(
            QuantizedTensor(
                name=name,
                kind=unit.kind if unit else kinds.get(nodes[name].op, "float"),
                seen=_seen(planned, stats, name),
                range=planned.ranges[name],
                scale=params.scale,
                zero_point=params.zero_point,
                weight=_weight(planned, nodes[unit.nodes[0]]) if unit else None,
            )
        )
    return QuantizationTable(encoding=encoding.name, tensors=tuple(tensors))


def _seen(planned: Plan, stats: Stats, name: str) -> tuple[float, float] | None:
    tensor = stats.tensors.get(planned.lowered.source(name))
    if tensor is None or name in planned.lowered.fixed:
        return None
    factor = planned.lowered.factor(name)
    return factor * tensor.low, factor * tensor.high


def _weight(planned: Plan, node: Node) -> QuantizedWeight | None:
    if node.target not in WEIGHTED:
        return None
    weight = parameter_of(planned.graph_module, node.args[1])
    assert weight is not None
    scales = tuple(planned.weight_scales[node.name].tolist())
    return QuantizedWeight(node=node.name, channels=len(weight), scales=scales)
