"""Quantization-aware training: a detector that computes, while it learns, what its INT8 artifacts will.

The forward pass is the captured graph with the placement of the integer kernels of ONNX Runtime and LiteRT,
which quantize most often; OpenVINO's and TensorRT's quantize a part of the same tensors. Parameters stay the
detector's own: every step folds batch normalisation into the weights, with its statistics held still, and
rounds the result. Ranges are learned with the weights (LSQ, ICLR 2020; LSQ+, CVPRW 2020), so that what is
exported afterwards needs no calibration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgedet import registry
from edgedet.data import Dataset
from edgedet.models.capture import Origin, capture, set_batch
from edgedet.models.detector import Detector
from edgedet.progress import Track, silent
from edgedet_calibration.collect import collect
from edgedet_calibration.encodings import ONNX_RUNTIME
from edgedet_calibration.equalization import equalize, equalized, measured_factors
from edgedet_calibration.images import CalibrationImages
from edgedet_calibration.lower import Lowered, Range, lower
from edgedet_calibration.placement import WEIGHTED, Groups, Placement, place
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.weight_scales import (
    SMALLEST_WEIGHT_SCALE,
    WEIGHT_LIMIT,
    ScaleRule,
    is_depthwise,
    smallest_weight_scale,
)

_ENCODING = ONNX_RUNTIME
_STEPS = _ENCODING.quant_max - _ENCODING.quant_min


def quantized_detector(
    detector: Detector, dataset: Dataset | None, images: int = 96, track: Track = silent
) -> QuantizedDetector:
    """A float detector as one to go on training in 8 bits; its channels are equalized on the way.

    Args:
        detector: Trained in float; changed in place.
        dataset: Images whose statistics give the first ranges; None where a state dict will be loaded.
        images: How many of them.
        track: Shows progress.
    """
    captured = capture(detector)
    placement = place(captured.graph_module)
    if dataset is None:
        return QuantizedDetector(detector, dict.fromkeys(placement.ranges, (0.0, 1.0)))
    recipe = Recipe(images=images)
    calibration = CalibrationImages(dataset, captured.spec.input, recipe.images)
    factors = measured_factors(captured, calibration, track)
    stats = collect(equalized(captured, factors), placement, calibration, track)
    equalize(detector, captured, factors)
    choose = registry.OBSERVERS.load(recipe.observer)
    ranges = {name: choose(tensor.histogram(), recipe) for name, tensor in stats.tensors.items()}
    return QuantizedDetector(detector, ranges)


class QuantizedDetector(Detector):
    """A detector whose forward pass rounds weights and activations to 8 bits; gradients pass through.

    Args:
        detector: Trained in float; its backbone and head become this one's.
        ranges: Where to start from, by node name: for every tensor that is quantized.
    """

    def __init__(self, detector: Detector, ranges: Mapping[str, Range]) -> None:
        super().__init__(detector.config, detector.backbone, detector.head)
        captured = capture(detector)
        graph_module = captured.graph_module
        lowered = lower(graph_module, lambda _: False)
        placement = place(graph_module, constants=lowered.fixed)
        fixed = {placement.ranges[n]: limits for n, limits in lowered.fixed.items() if n in placement.ranges}
        # Gates and sigmoids, which other encodings quantize with ranges like any other.
        constants = {node.name for node in graph_module.graph.nodes if node.op == "get_attr"}
        self._fixed = {lowered.source(n): r for n, r in lowered.fixed.items() if n not in constants}
        groups = Groups()  # tensors that share a range, or are multiples of one that was collected
        for name, group in placement.ranges.items():
            if group not in fixed:
                groups.join((group, f"source of {lowered.source(name)}"))
        self._sources = {
            lowered.source(name): groups.find(group)
            for name, group in placement.ranges.items()
            if group not in fixed
        }
        self.ranges = nn.ModuleDict(
            {group: LearnedRange(*_widest(self._sources, group, ranges)) for group in self._sources.values()}
        )
        shared = {
            group: self.ranges[groups.find(group)] for group in set(placement.ranges.values()) - set(fixed)
        }
        _round_activations(graph_module, placement, lowered, fixed, shared)
        _round_weights(graph_module, captured.origins, lowered, detector)
        set_batch(graph_module, -1)
        graph_module.graph.eliminate_dead_code()
        # A new module takes over only what the graph reads: the captured weights stay behind.
        self.graph_module = GraphModule(graph_module, graph_module.graph)

    @property
    def has_pair_safe_weights(self) -> bool:
        """Its weights are rounded at scales that are safe on x86 processors without VNNI."""
        return True

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets and logits of normalised images, as the detector's."""
        offsets, logits = self.graph_module(images)
        return offsets, logits

    @torch.no_grad()
    def learned_ranges(self) -> dict[str, Range]:
        """The range of every quantized tensor, by node name of the captured detector."""
        ends = {group: learned() for group, learned in self.ranges.items()}
        learned = {name: (float(low), float(high)) for name, (low, high) in ends.items()}
        return {**self._fixed, **{name: learned[group] for name, group in self._sources.items()}}


class LearnedRange(nn.Module):
    """A range that holds 0; its ends are learned as factors, so that a step is a share of them.

    Args:
        low: Where its lower end starts, widened to 0.
        high: Where its upper end starts, widened to 0.
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(min(low, 0.0)))
        self.register_buffer("high", torch.tensor(max(high, 0.0)))
        self.log_low_factor = nn.Parameter(torch.zeros(()))
        self.log_high_factor = nn.Parameter(torch.zeros(()))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Lower and upper end."""
        return self.low * self.log_low_factor.exp(), self.high * self.log_high_factor.exp()


class _Round(nn.Module):
    """Rounds a tensor to the steps of a range, which is another one's times a factor."""

    def __init__(self, learned: LearnedRange, factor: float) -> None:
        super().__init__()
        # In a tuple: the range is the detector's, and is trained once wherever it is used.
        self._range, self._factor = (learned,), factor

    def forward(self, values: Tensor) -> Tensor:
        """The values on the grid."""
        rounded: Tensor = _FakeQuantize.apply(values, *self._ends())
        return rounded

    def step(self) -> float:
        """Width of a step of the grid."""
        low, high = self._ends()
        return _ENCODING.params(float(low.detach()), float(high.detach())).scale

    def _ends(self) -> tuple[Tensor, Tensor]:
        low, high = self._range[0]()
        return low * self._factor, high * self._factor


class _RoundFixed(nn.Module):
    """Rounds a tensor to the steps of a range that its operator gives."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self._params = _ENCODING.params(low, high)

    def step(self) -> float:
        """Width of a step of the grid."""
        return self._params.scale

    def forward(self, values: Tensor) -> Tensor:
        """The values on the grid."""
        params = self._params
        return torch.fake_quantize_per_tensor_affine(
            values, params.scale, params.zero_point, _ENCODING.quant_min, _ENCODING.quant_max
        )


class _FakeQuantize(torch.autograd.Function):
    """Rounding with a straight-through gradient, and gradients of the range's ends (LSQ+, equations 3 to 5).

    Those are divided by sqrt(values x steps), which makes them as long as a weight's (LSQ, section 2.2).
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, low: Tensor, high: Tensor) -> Tensor:
        params = _ENCODING.params(float(low), float(high))
        rounded = torch.fake_quantize_per_tensor_affine(
            values, params.scale, params.zero_point, _ENCODING.quant_min, _ENCODING.quant_max
        )
        ctx.save_for_backward(values, rounded)
        ctx.half_step = params.scale / 2
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        values, rounded = ctx.saved_tensors
        (gradient,) = gradients
        error = rounded - values
        inside = error.abs() <= ctx.half_step * (1 + 1e-4)
        passed = gradient * inside
        clipped = gradient - passed
        # A step is (high - low) / steps: what rounding did to a value is a share of both ends.
        share = torch.dot(passed.flatten(), error.flatten()) / (2 * ctx.half_step * _STEPS)
        low = torch.sum(clipped * (error > 0))
        high = clipped.sum() - low
        length = 1 / math.sqrt(values.numel() * _STEPS)
        return passed, (low - share) * length, (high + share) * length


class _RoundedLayer(nn.Module):
    """A layer with batch normalisation folded in; its weights and bias are rounded as in `quantize`.

    Args:
        node: The operator of the captured graph.
        origin: Where its weight and bias come from.
        factor: What the weight is multiplied with.
        rounding: Of what it reads.
        detector: Has the parameters.
    """

    def __init__(
        self, node: Node, origin: Origin, factor: float, rounding: _Round | _RoundFixed, detector: Detector
    ) -> None:
        super().__init__()
        self._rounding = (rounding,)
        layer, _, self._weight = origin.weight.rpartition(".")
        norm = detector.get_submodule(origin.norm) if origin.norm else None
        self._source = (detector.get_submodule(layer), norm)  # in a tuple: they stay the detector's
        self._has_bias, self._is_gate, self._factor = origin.bias is not None, origin.is_gate, factor
        self._operator, self._rest = node.target, tuple(node.args[3:])
        self._pair_safe = not is_depthwise(node, detector.get_parameter(origin.weight))

    def forward(self, values: Tensor) -> Tensor:
        """The layer of rounded weights."""
        assert callable(self._operator)
        weight, bias = self._folded()
        smallest = SMALLEST_WEIGHT_SCALE
        if bias is not None:
            smallest = smallest_weight_scale(bias, self._rounding[0].step())
        scale = ScaleRule(pair_safe=self._pair_safe, floor=smallest).scales(weight).float()
        zeros = torch.zeros_like(scale, dtype=torch.int32)
        limits = (-WEIGHT_LIMIT, WEIGHT_LIMIT)
        rounded = torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, *limits)
        if bias is not None:
            step = scale * self._rounding[0].step()
            bias = bias + (step * torch.round(bias / step) - bias).detach()
        result: Tensor = self._operator(values, rounded, bias, *self._rest)
        return result

    def _folded(self) -> tuple[Tensor, Tensor | None]:
        layer, norm = self._source
        weight: Tensor = layer.get_parameter(self._weight)
        bias: Tensor | None = layer.get_parameter("bias") if self._has_bias else None
        if norm is not None:
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_var is not None
            assert norm.running_mean is not None
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            bias = norm.bias + ((0 if bias is None else bias) - norm.running_mean) * scale
            weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
        if self._is_gate:
            weight = weight / 6
            bias = weight.new_full(weight.shape[:1], 0.5) if bias is None else bias / 6 + 0.5
        return weight * self._factor, bias


def _widest(sources: Mapping[str, str], group: str, ranges: Mapping[str, Range]) -> Range:
    """The range that holds those of all tensors that share one."""
    lows, highs = zip(*(ranges[name] for name, other in sources.items() if other == group), strict=True)
    return min(lows), max(highs)


def _round_activations(
    graph_module: GraphModule,
    placement: Placement,
    lowered: Lowered,
    fixed: Mapping[str, Range],
    ranges: Mapping[str, nn.Module],
) -> None:
    """Insert rounding behind every quantized tensor, for all that read it as integers."""
    outputs = {unit.output for unit in placement.units}
    members = {name for unit in placement.units for name in unit.nodes}
    for node in list(graph_module.graph.nodes):
        group = placement.ranges.get(node.name)
        if group is None or node.op == "get_attr":  # constants lie on their grids
            continue
        readers = [user for user in node.users if node.name in outputs or user.name in members]
        factor = lowered.factor(node.name)
        if group in fixed:
            low, high = fixed[group]
            module: nn.Module = _RoundFixed(factor * low, factor * high)
        else:
            learned = ranges[group]
            assert isinstance(learned, LearnedRange)
            module = _Round(learned, factor)
        graph_module.add_submodule(f"round_{node.name}", module)
        with graph_module.graph.inserting_after(node):
            rounding = graph_module.graph.call_module(f"round_{node.name}", (node,))
        for reader in readers:
            reader.replace_input_with(node, rounding)


def _round_weights(
    graph_module: GraphModule, origins: Mapping[str, Origin], lowered: Lowered, detector: Detector
) -> None:
    for node in list(graph_module.graph.nodes):
        if node.target not in WEIGHTED:
            continue
        factor, rounding = lowered.weights.get(node.name, 1.0), _rounding_of(graph_module, node.args[0])
        layer = _RoundedLayer(node, origins[node.name], factor, rounding, detector)
        graph_module.add_submodule(f"layer_{node.name}", layer)
        with graph_module.graph.inserting_before(node):
            call = graph_module.graph.call_module(f"layer_{node.name}", (node.args[0],))
        node.replace_all_uses_with(call)
        graph_module.graph.erase_node(node)
    graph_module.graph.eliminate_dead_code()


def _rounding_of(graph_module: GraphModule, node: object) -> _Round | _RoundFixed:
    assert isinstance(node, Node)
    module = graph_module.get_submodule(str(node.target))
    assert isinstance(module, _Round | _RoundFixed)
    return module
