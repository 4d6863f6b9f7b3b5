"""A detector as one flat graph of ATen operators: what is calibrated, quantized and exported.

Capturing happens once, in float. Batch normalisation is folded into the convolution before it and in-place
activations are written out of place, so that every later stage sees the same nodes under the same names, and
float and INT8 artifacts come from one graph.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.fx import GraphModule, Node

from edgedet.models.detector import Detector
from edgedet.spec import DetectorSpec

_aten = torch.ops.aten

_OUT_OF_PLACE = {
    _aten.hardtanh_.default: _aten.hardtanh.default,
    _aten.relu_.default: _aten.relu.default,
    _aten.relu6_.default: _aten.relu6.default,
    _aten.hardswish_.default: _aten.hardswish.default,
    _aten.hardsigmoid_.default: _aten.hardsigmoid.default,
    _aten.silu_.default: _aten.silu.default,
    _aten.sigmoid_.default: _aten.sigmoid.default,
    _aten.clamp_.default: _aten.clamp.default,
    _aten.add_.Tensor: _aten.add.Tensor,
    _aten.mul_.Tensor: _aten.mul.Tensor,
}

_IDENTITIES = (_aten.alias.default, _aten.dropout.default, _aten.dropout_.default)

_CONVOLUTIONS = (_aten.conv2d.default, _aten.convolution.default, _aten.conv2d.padding)
_WEIGHTED = (*_CONVOLUTIONS, _aten.linear.default)

# What says the size of its result, the number of images in front.
_SHAPED = (_aten.reshape.default, _aten.view.default, _aten.expand.default)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a weighted operator of the graph has its weight and bias from: names in the detector.

    Attributes:
        weight: Of the weight.
        bias: Of the bias, if the layer has one.
        norm: Of the batch normalisation that is folded into it, if one is.
        is_gate: A hard-sigmoid was absorbed: weight / 6, bias / 6 + 1/2.
    """

    weight: str
    bias: str | None
    norm: str | None
    is_gate: bool


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """A captured detector: its graph, and the spec whose input and outputs the graph has, in order.

    `origins` are those of its weighted operators, by node name.
    """

    graph_module: GraphModule
    spec: DetectorSpec
    origins: Mapping[str, Origin] = field(default_factory=dict)

    @property
    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        """Zeros of the input's shape."""
        return (torch.zeros(self.spec.input.tensor.shape),)


def capture(detector: Detector, spec: DetectorSpec | None = None) -> Captured:
    """Capture a detector for one image, in evaluation mode, with batch normalisation folded."""
    spec = spec or detector.spec()
    example = (torch.zeros(spec.input.tensor.shape),)
    graph_module = torch.export.export(detector.eval().cpu(), example).module(check_guards=False)
    _write_out_of_place(graph_module)
    _drop_identities(graph_module)
    origins = _origins(graph_module)
    fold_batch_norm(graph_module)
    absorb_hardsigmoid(graph_module)
    # Exported once more, so that nodes are numbered by what is left and nothing folded stays behind.
    graph_module = torch.export.export(graph_module, example).module(check_guards=False)
    _drop_identities(graph_module)
    names = [node.name for node in graph_module.graph.nodes if node.target in _WEIGHTED]
    return Captured(graph_module, spec, dict(zip(names, origins, strict=True)))


def set_batch(graph_module: GraphModule, batch: int) -> None:
    """Change in place for how many images a captured graph is; -1 for any number.

    It was captured for one image, which shows in what tensors are reshaped and expanded to. Constants stay as
    they are: they are of one image or of none, and broadcast. Example values in `meta` stay those of before.
    """
    from_images = {node for node in graph_module.graph.nodes if node.op == "placeholder"}
    for node in graph_module.graph.nodes:
        if from_images.isdisjoint(node.all_input_nodes):
            continue
        from_images.add(node)
        if node.target not in _SHAPED or node.args[1][0] != 1:
            continue
        if batch > 0 or -1 not in node.args[1]:  # one size alone can be left open
            node.args = (node.args[0], [batch, *node.args[1][1:]])
    graph_module.recompile()


def parameter_of(graph_module: GraphModule, node: object) -> torch.Tensor | None:
    """The tensor that a `get_attr` node reads, or None for anything else."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    tensor = operator.attrgetter(str(node.target))(graph_module)
    return tensor if isinstance(tensor, torch.Tensor) else None


def _origins(graph_module: GraphModule) -> list[Origin]:
    """Of every weighted operator in order, before anything is folded into it."""
    norms = dict(_alone_behind_convolutions(graph_module, _aten.batch_norm.default))
    gates = dict(_alone_behind_convolutions(graph_module, _aten.hardsigmoid.default))
    return [
        Origin(
            weight=_name_of(node.args[1]),
            bias=_name_of(node.args[2]) if len(node.args) > 2 and node.args[2] is not None else None,
            norm=_name_of(norms[node].args[3]).rpartition(".")[0] if node in norms else None,
            is_gate=node in gates,
        )
        for node in graph_module.graph.nodes
        if node.target in _WEIGHTED
    ]


def _name_of(node: object) -> str:
    assert isinstance(node, Node)
    return str(node.target)


def fold_batch_norm(graph_module: GraphModule) -> int:
    """Fold every batch normalisation that alone follows a convolution into it; returns how many."""
    pairs = _alone_behind_convolutions(graph_module, _aten.batch_norm.default)
    for convolution, norm in pairs:
        _fold(graph_module, convolution, norm)
    graph_module.graph.eliminate_dead_code()
    graph_module.recompile()
    return len(pairs)


def _alone_behind_convolutions(graph_module: GraphModule, target: object) -> list[tuple[Node, Node]]:
    """Every convolution whose value only one operator reads, and that of this kind, with the operator."""
    return [
        (node.args[0], node)
        for node in graph_module.graph.nodes
        if node.op == "call_function"
        and node.target is target
        and node.args[0].target in _CONVOLUTIONS
        and len(node.args[0].users) == 1
    ]


def _fold(graph_module: GraphModule, convolution: Node, norm: Node) -> None:
    gamma, beta, mean, variance = (parameter_of(graph_module, arg) for arg in norm.args[1:5])
    eps = norm.args[7]
    assert mean is not None
    assert variance is not None
    assert isinstance(eps, float)
    # In double, so that the fold itself adds no error to float parity.
    weight, bias = _weight_and_bias(graph_module, convolution)
    scale = torch.rsqrt(variance.double() + eps)
    if gamma is not None:
        scale = scale * gamma.double()
    shift = (bias - mean.double()) * scale + (0 if beta is None else beta.double())
    weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
    _set_parameters(graph_module, convolution, "folded", weight, shift)
    norm.replace_all_uses_with(convolution)
    graph_module.graph.erase_node(norm)


def absorb_hardsigmoid(graph_module: GraphModule) -> int:
    """Write every hard-sigmoid that alone follows a convolution as a clamp to [0, 1]; returns how many.

    hard-sigmoid is clip(x / 6 + 1/2, 0, 1) (MobileNetV3, section 5.2): the convolution takes the affine part,
    and every kernel of every runtime computes a clamp together with a convolution.
    """
    pairs = _alone_behind_convolutions(graph_module, _aten.hardsigmoid.default)
    for convolution, node in pairs:
        weight, bias = _weight_and_bias(graph_module, convolution)
        _set_parameters(graph_module, convolution, "gate", weight / 6, bias / 6 + 0.5)
        with graph_module.graph.inserting_before(node):
            clamp = graph_module.graph.call_function(_aten.clamp.default, (convolution, 0.0, 1.0))
        node.replace_all_uses_with(clamp)
        graph_module.graph.erase_node(node)
    graph_module.graph.eliminate_dead_code()
    graph_module.recompile()
    return len(pairs)


def _weight_and_bias(graph_module: GraphModule, convolution: Node) -> tuple[torch.Tensor, torch.Tensor]:
    """In double; zeros where a convolution has no bias."""
    weight = parameter_of(graph_module, convolution.args[1])
    assert weight is not None
    bias = parameter_of(graph_module, convolution.args[2]) if len(convolution.args) > 2 else None
    return weight.double(), torch.zeros(len(weight)).double() if bias is None else bias.double()


def _set_parameters(
    graph_module: GraphModule, convolution: Node, role: str, weight: torch.Tensor, bias: torch.Tensor
) -> None:
    arguments = list(convolution.args) + [None] * (3 - len(convolution.args))
    with graph_module.graph.inserting_before(convolution):
        for position, name, tensor in ((1, "weight", weight), (2, "bias", bias)):
            parameter = nn.Parameter(tensor.float().contiguous(), requires_grad=False)
            graph_module.register_parameter(f"{convolution.name}_{role}_{name}", parameter)
            arguments[position] = graph_module.graph.get_attr(f"{convolution.name}_{role}_{name}")
    convolution.args = tuple(arguments)


def _write_out_of_place(graph_module: GraphModule) -> None:
    for node in graph_module.graph.nodes:
        if node.op == "call_function" and node.target in _OUT_OF_PLACE:
            node.target = _OUT_OF_PLACE[node.target]


def _drop_identities(graph_module: GraphModule) -> None:
    """Remove what does nothing in evaluation mode and would stand between fused operators."""
    for node in list(graph_module.graph.nodes):
        if node.op == "call_function" and node.target in _IDENTITIES:
            node.replace_all_uses_with(node.args[0])
            graph_module.graph.erase_node(node)
    graph_module.graph.eliminate_dead_code()
    graph_module.recompile()
