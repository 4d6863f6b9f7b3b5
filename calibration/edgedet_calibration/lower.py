"""Activations written in the operators that have integer kernels, where convolutions do not compute them.

hard-swish is x · clip(x + 3, 0, 6) / 6 (MobileNetV3, section 5.2). ONNX Runtime has no integer kernel of it,
and LiteRT's XNNPACK delegate leaves it to a scalar one, but both have fast integer sums and products: the
clip is what an unsigned quantization of [0, 6] does anyway, and the division goes into the weights of the
convolutions that read the product, which costs nothing. SiLU is x · sigmoid(x), and a gate that is clipped
to [0, 1] is the saturation of its own quantization.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

from edgedet.models.capture import parameter_of
from edgedet_calibration.placement import CLAMPS, CONVOLUTIONS, MOVES, WEIGHTED

_aten = torch.ops.aten

Range = tuple[float, float]

# The ranges that TFLite prescribes for the output of LOGISTIC: scale 1/256 with the lowest integer for 0, and
# scale 1/32768 with zero point 0.
_SIGMOID_RANGE: Range = (0.0, 255 / 256)
_SYMMETRIC_SIGMOID_RANGE: Range = (0.0, 32767 / 32768)
_SIXTH = 1 / 6


@dataclass(frozen=True, slots=True)
class Lowered:
    """What is known of the tensors of a lowered graph without having seen them.

    Attributes:
        fixed: Ranges by node name, given by the operators.
        scaled: For nodes whose values are a multiple of what was collected: by node name, the name that it
            was collected under and the factor.
        weights: By the name of a convolution, what its weight was multiplied with.
    """

    fixed: dict[str, Range] = field(default_factory=dict)
    scaled: dict[str, tuple[str, float]] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)

    def source(self, name: str) -> str:
        """The name that a node's values were collected under."""
        return self.scaled.get(name, (name, 1.0))[0]

    def factor(self, name: str) -> float:
        """What a node's values are times those that were collected."""
        return self.scaled.get(name, (name, 1.0))[1]


NOT_LOWERED = Lowered()


def lower(
    graph_module: GraphModule, keeps_float: Callable[[str], bool], *, symmetric: bool = False
) -> Lowered:
    """Rewrite the activations of a captured graph in place; what it computes stays the same.

    Args:
        graph_module: The graph.
        keeps_float: Says of a node's name whether it is to stay as it is.
        symmetric: Integers are symmetric around 0: a range that starts at 0 saturates at its upper end only.
    """
    lowered = Lowered()
    sigmoid_range = _SYMMETRIC_SIGMOID_RANGE if symmetric else _SIGMOID_RANGE
    for node in list(graph_module.graph.nodes):
        if node.op != "call_function":
            continue
        if keeps_float(node.name):
            if node.target in CONVOLUTIONS and not _is_of_float(node, keeps_float):
                _shield(graph_module, node)
            continue
        if node.target is _aten.hardswish.default:
            _lower_hardswish(graph_module, node, lowered)
        elif node.target is _aten.silu.default:
            _lower_silu(graph_module, node, lowered, sigmoid_range)
        elif node.target is _aten.sigmoid.default:
            lowered.fixed[node.name] = sigmoid_range
        elif _is_gate(node) and not keeps_float(node.args[0].name):
            _lower_gate(graph_module, node, lowered, symmetric)
    graph_module.graph.lint()
    graph_module.recompile()
    return lowered


def _is_of_float(convolution: Node, keeps_float: Callable[[str], bool]) -> bool:
    """Whether a convolution reads the image, and alone does, or another convolution that stays float."""
    source = convolution.args[0]
    if isinstance(source, Node) and source.op == "placeholder":
        return len(source.users) == 1
    while isinstance(source, Node) and source.target in CLAMPS:
        source = source.args[0]
    return isinstance(source, Node) and source.target in CONVOLUTIONS and keeps_float(source.name)


def _shield(graph_module: GraphModule, convolution: Node) -> None:
    """Keep a float convolution float, by a product before it that its weight takes back exactly.

    ONNX Runtime's optimizer and LiteRT's converter quantize the weight of a float convolution by themselves
    where it reads a dequantization and a quantization reads it. The converter folds a factor of all channels
    into the weight, so every other channel is doubled.
    """
    source, weight = convolution.args[0], parameter_of(graph_module, convolution.args[1])
    assert isinstance(source, Node)
    assert weight is not None
    channels = int(source.meta["val"].shape[1])
    factors = torch.ones(1, channels, 1, 1)
    factors[:, ::2] = 2.0
    groups = channels // weight.shape[1]
    columns = factors.reshape(groups, 1, -1).expand(groups, len(weight) // groups, -1)
    replace_weight(graph_module, convolution, weight.detach() / columns.reshape(len(weight), -1, 1, 1))
    name = f"{convolution.name}_shield"
    graph_module.register_buffer(name, factors)
    with graph_module.graph.inserting_before(convolution):
        constant = graph_module.graph.get_attr(name)
        product = _call(convolution, "shielded", _aten.mul.Tensor, source, constant)
        product.meta = dict(source.meta)
        convolution.args = (product, *convolution.args[1:])


def _is_gate(node: Node) -> bool:
    """Whether a convolution that nothing else reads is clipped to [0, 1] in a range of its own."""
    if node.target is not _aten.clamp.default or tuple(node.args[1:]) != (0.0, 1.0):
        return False
    if any(reader.target in MOVES for reader in node.users):
        return False
    source = node.args[0]
    return isinstance(source, Node) and source.target in WEIGHTED and len(source.users) == 1


def _lower_gate(graph_module: GraphModule, node: Node, lowered: Lowered, symmetric: bool) -> None:
    """The quantization clips; where it does not clip at 0, a ReLU inside the convolution does."""
    gate = node.args[0]
    assert isinstance(gate, Node)
    if symmetric:
        with graph_module.graph.inserting_before(node):
            gate = _call(node, "gate", _aten.relu.default, gate)
    lowered.fixed[gate.name] = (0.0, 1.0)
    lowered.scaled[gate.name] = (node.name, 1.0)
    _replace(graph_module, node, gate)


def _lower_silu(graph_module: GraphModule, node: Node, lowered: Lowered, sigmoid_range: Range) -> None:
    with graph_module.graph.inserting_before(node):
        gate = _call(node, "gate", _aten.sigmoid.default, node.args[0])
        product = _call(node, "product", _aten.mul.Tensor, node.args[0], gate)
    lowered.fixed[gate.name] = sigmoid_range
    lowered.scaled[product.name] = (node.name, 1.0)
    _replace(graph_module, node, product)


def _lower_hardswish(graph_module: GraphModule, node: Node, lowered: Lowered) -> None:
    graph = graph_module.graph
    deferred = _deferred(node)
    with graph.inserting_before(node):
        shifted = _call(node, "shifted", _aten.add.Tensor, node.args[0], _constant(graph_module, node, 3.0))
        gate = _call(node, "gate", _aten.hardtanh.default, shifted, 0.0, 6.0)
        product = _call(node, "product", _aten.mul.Tensor, node.args[0], gate)
        lowered.fixed.update({str(shifted.args[1]): (0.0, 3.0), gate.name: (0.0, 6.0)})
        lowered.scaled[product.name] = (node.name, 6.0)
        result = product
        if deferred is None:
            result = _call(node, "sixth", _aten.mul.Tensor, product, _constant(graph_module, node, _SIXTH))
            lowered.fixed[str(result.args[1])] = (0.0, _SIXTH)
            lowered.scaled[result.name] = (node.name, 1.0)
    _replace(graph_module, node, result)
    if deferred is not None:
        convolutions, passed = deferred
        # A node that two deferred products reach carries both factors.
        lowered.scaled.update({n.name: (n.name, 6.0 * lowered.factor(n.name)) for n in passed})
        for convolution in convolutions:
            _scale_weight(graph_module, convolution, _SIXTH)
            lowered.weights[convolution.name] = _SIXTH * lowered.weights.get(convolution.name, 1.0)


def _deferred(node: Node) -> tuple[list[Node], list[Node]] | None:
    """The convolutions that can divide a node's value by a constant, and what passes it on to them.

    None where something reads it that neither multiplies it with weights nor passes a factor on.
    """
    convolutions: list[Node] = []
    passed: list[Node] = []
    pending = [node]
    while pending:
        source = pending.pop()
        for reader in source.users:
            if reader.target in WEIGHTED and reader.args[0] is source:
                convolutions.append(reader)
            elif reader.target is _aten.mean.dim or _is_product(reader):
                passed.append(reader)
                pending.append(reader)
            else:
                return None
    scaled = {node, *passed}
    products = [n for n in passed if n.target is _aten.mul.Tensor]
    if len(set(passed)) < len(passed) or any(sum(arg in scaled for arg in n.args) != 1 for n in products):
        return None
    return convolutions, passed


def _is_product(reader: Node) -> bool:
    return reader.target is _aten.mul.Tensor and all(isinstance(arg, Node) for arg in reader.args)


def _scale_weight(graph_module: GraphModule, convolution: Node, factor: float) -> None:
    weight = parameter_of(graph_module, convolution.args[1])
    assert weight is not None
    replace_weight(graph_module, convolution, (weight.detach().double() * factor).float())


def replace_weight(graph_module: GraphModule, convolution: Node, weight: torch.Tensor) -> None:
    """Give one convolution another weight; one that reads the same tensor keeps its own."""
    name = f"{convolution.name}_own_weight"
    graph_module.register_parameter(name, nn.Parameter(weight, requires_grad=False))
    with graph_module.graph.inserting_before(convolution):
        convolution.args = (convolution.args[0], graph_module.graph.get_attr(name), *convolution.args[2:])


def _constant(graph_module: GraphModule, node: Node, value: float) -> Node:
    """A constant that an integer kernel can read beside a tensor `[n, c, h, w]`."""
    name = f"{node.name}_constant_{str(value)[:4].replace('.', '_')}"
    graph_module.register_buffer(name, torch.full((1, 1, 1, 1), value))
    return graph_module.graph.get_attr(name)


def _call(origin: Node, role: str, target: Callable[..., Any], *args: Any) -> Node:
    created = origin.graph.create_node("call_function", target, args, name=f"{origin.name}_{role}")
    created.meta = dict(origin.meta)  # torchao quantizes what has the example value of a tensor
    return created


def _replace(graph_module: GraphModule, node: Node, replacement: Node) -> None:
    node.replace_all_uses_with(replacement, delete_user_cb=lambda user: user is not replacement)
    graph_module.graph.erase_node(node)
