"""Statistics and an encoding to a fake-quantized torch graph: source and reference of an integer artifact.

torchao's PT2E machinery inserts the quantizers; where they go and with what scales is decided here, and every
scale is fixed before it runs. The same statistics give every encoding, so that artifacts differ in type, not
in range.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import ObserverBase
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import (
    FixedQParamsQuantizationSpec,
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
)

from edgedet import registry
from edgedet.errors import BundleError
from edgedet.models.capture import Captured, parameter_of
from edgedet.saturation import PAIR_LIMIT, pair_sums
from edgedet_calibration.encodings import Encoding, QuantParams
from edgedet_calibration.equalization import equalized
from edgedet_calibration.lower import NOT_LOWERED, Lowered, Range, lower, replace_weight
from edgedet_calibration.placement import CONVOLUTIONS, WEIGHTED, Placement, place
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import Histogram, Stats
from edgedet_calibration.weight_scales import (
    SMALLEST_WEIGHT_SCALE,
    WEIGHT_LIMIT,
    ScaleRule,
    is_depthwise,
    smallest_weight_scale,
)
from edgedet_calibration.weight_steps import misfit, moved, unpacked

_ANNOTATION = "quantization_annotation"


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is quantized in a copy of a captured graph, and with what scales.

    Attributes:
        graph_module: The copy, with its activations lowered where the encoding wants it.
        lowered: What is known of its tensors without having seen them.
        placement: Its units and quantized tensors.
        ranges: The range of every quantized tensor, by node name.
        params: The same as integers of the encoding.
        weight_scales: Of every weighted operator, by node name: float64, `[channels]`, or `[1]` for the
            tensor.
        paired: Names of those whose neighbouring weights share 16 bits on some processors.
    """

    graph_module: GraphModule
    lowered: Lowered
    placement: Placement
    ranges: dict[str, Range]
    params: dict[str, QuantParams]
    weight_scales: dict[str, torch.Tensor]
    paired: frozenset[str]


def quant_params(
    placement: Placement, stats: Stats, recipe: Recipe, encoding: Encoding, lowered: Lowered = NOT_LOWERED
) -> dict[str, QuantParams]:
    """Scale and zero point of every quantized tensor; those that share a range get the same."""
    ranges = _ranges(placement, stats, recipe, lowered)
    return {name: encoding.params(*limits) for name, limits in ranges.items()}


def _ranges(placement: Placement, stats: Stats, recipe: Recipe, lowered: Lowered) -> dict[str, Range]:
    fixed = {placement.ranges[n]: limits for n, limits in lowered.fixed.items() if n in placement.ranges}
    # Two tensors may have one source: a product that is 6 times what was collected, and the product / 6.
    sources = [
        (lowered.source(name), group) for name, group in placement.ranges.items() if group not in fixed
    ]
    chosen = _learned(sources, stats.ranges) if stats.ranges else _observed(sources, stats, recipe)
    ranges = {}
    for name, group in placement.ranges.items():
        low, high = fixed.get(group) or chosen[group]
        factor = lowered.factor(name)
        ranges[name] = (factor * low, factor * high)
    return ranges


def plan(captured: Captured, stats: Stats, recipe: Recipe, encoding: Encoding) -> Plan:
    """Decide what `quantize` inserts.

    Raises:
        BundleError: The statistics are of another detector.
    """
    graph_module, lowered, placement = placed(equalized(captured, stats.channel_factors), recipe, encoding)
    wanted = {lowered.source(name) for name in placement.ranges if name not in lowered.fixed}
    stats.check_fits(captured.spec.provenance.checkpoint_sha256, captured.spec.input, wanted)
    ranges = _ranges(placement, stats, recipe, lowered)
    params = {name: encoding.params(*limits) for name, limits in ranges.items()}
    floors = {
        node.name: smallest_weight_scale(bias, input_scale)
        for node, input_scale, bias in _biased_units(graph_module, placement, params)
        if encoding.integer_biases
    }
    scales, paired = {}, set()
    for node in _weighted_nodes(graph_module, placement):
        weight = parameter_of(graph_module, node.args[1])
        assert weight is not None
        if recipe.pair_safe and encoding.pair_safe and not is_depthwise(node, weight):
            paired.add(node.name)
        rule = ScaleRule(
            per_channel=recipe.weights == "per_channel",
            pair_safe=node.name in paired,
            floor=floors.get(node.name, SMALLEST_WEIGHT_SCALE),
        )
        scales[node.name] = rule.scales(weight)
    return Plan(graph_module, lowered, placement, ranges, params, scales, frozenset(paired))


def _weighted_nodes(graph_module: GraphModule, placement: Placement) -> list[Node]:
    nodes = {node.name: node for node in graph_module.graph.nodes}
    return [nodes[unit.nodes[0]] for unit in placement.units if unit.kind == "weighted"]


def _observed(sources: Sequence[tuple[str, str]], stats: Stats, recipe: Recipe) -> dict[str, Range]:
    """The range of every group, chosen from the histogram of all that share it."""
    merged: dict[str, Histogram] = {}
    for source, group in sources:
        histogram = stats.tensors[source].histogram()
        merged[group] = merged[group].merged(histogram) if group in merged else histogram
    choose = registry.OBSERVERS.load(recipe.observer)
    return {group: choose(histogram, recipe) for group, histogram in merged.items()}


def _learned(sources: Sequence[tuple[str, str]], ranges: Mapping[str, Range]) -> dict[str, Range]:
    """The range of every group, where training gave each tensor one."""
    chosen: dict[str, Range] = {}
    for source, group in sources:
        low, high = ranges[source]
        other = chosen.get(group, (low, high))
        chosen[group] = (min(low, other[0]), max(high, other[1]))
    return chosen


def placed(captured: Captured, recipe: Recipe, encoding: Encoding) -> tuple[GraphModule, Lowered, Placement]:
    """A copy of a captured graph in the operators of an encoding, and what is quantized in it."""
    graph_module = copy.deepcopy(captured.graph_module)
    lowered = (
        NOT_LOWERED
        if encoding.fuses_epilogues
        else lower(graph_module, recipe.keeps_float, symmetric=encoding.symmetric)
    )
    placement = place(
        graph_module,
        recipe.keeps_float,
        fuses_epilogues=encoding.fuses_epilogues,
        constants=lowered.fixed,
    )
    return graph_module, lowered, placement


def quantize(
    captured: Captured, stats: Stats, recipe: Recipe, encoding: Encoding, *, fold_weights: bool = True
) -> GraphModule:
    """Insert quantizers into a copy of a captured graph.

    Args:
        captured: The float graph.
        stats: Statistics of its tensors.
        recipe: How ranges are chosen and what stays float.
        encoding: How activations are written.
        fold_weights: Store weights as int8 and a dequantization; otherwise as float with both operators,
            which is what the TFLite converter reads.

    Raises:
        BundleError: The statistics are of another detector, or lack the corrections that the recipe asks for.
    """
    planned = plan(captured, stats, recipe, encoding)
    return with_quantizers(planned, stats, recipe, encoding, fold_weights=fold_weights)


def with_quantizers(
    planned: Plan, stats: Stats, recipe: Recipe, encoding: Encoding, *, fold_weights: bool
) -> GraphModule:
    """Insert what a plan decided into its graph, which is changed; arguments and errors of `quantize`."""
    graph_module = planned.graph_module
    corrections = stats.corrections_for(recipe, encoding.arithmetic)
    if recipe.rounding == "least_squares":
        _step_weights(planned, corrections.weight_steps)
    if recipe.bias_correction:
        _shift_biases(graph_module, corrections.bias_shifts)
    if encoding.integer_biases:
        _round_biases(planned)
    quantizer = PlacementQuantizer(planned, recipe, encoding)
    prepared = prepare_pt2e(graph_module, quantizer)
    converted: GraphModule = convert_pt2e(prepared, fold_quantize=fold_weights)
    return converted


def biased_convolutions(graph_module: GraphModule) -> dict[str, torch.Tensor]:
    """The biases of convolutions, by node name."""
    biases = {
        node.name: parameter_of(graph_module, node.args[2])
        for node in graph_module.graph.nodes
        if node.target in CONVOLUTIONS and len(node.args) > 2
    }
    return {name: bias for name, bias in biases.items() if bias is not None}


def rounded_weights(planned: Plan) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Weight and scales of every quantized convolution, by node name."""
    found = {}
    for node in _weighted_nodes(planned.graph_module, planned.placement):
        if node.target is not torch.ops.aten.linear.default:
            weight = parameter_of(planned.graph_module, node.args[1])
            assert weight is not None
            found[node.name] = weight, planned.weight_scales[node.name]
    return found


def is_quantizer(node: Node, name: str | None = None) -> bool:
    """Whether a node of a quantized graph quantizes or dequantizes, or does it by the operator of a name."""
    if node.op != "call_function" or getattr(node.target, "namespace", "") != "quantized_decomposed":
        return False
    return name is None or str(node.target) == f"quantized_decomposed.{name}.default"


class PlacementQuantizer(Quantizer):  # type: ignore[misc]  # torchao is untyped
    """Writes a plan as PT2E annotations."""

    def __init__(self, planned: Plan, recipe: Recipe, encoding: Encoding) -> None:
        super().__init__()
        self._planned, self._per_channel = planned, recipe.weights == "per_channel"
        self._specs = {name: _activation_spec(p, encoding) for name, p in planned.params.items()}

    def annotate(self, model: GraphModule) -> GraphModule:
        """Annotate every unit of the placement."""
        nodes = {node.name: node for node in model.graph.nodes}
        for unit in self._planned.placement.units:
            for name in unit.nodes:
                node = nodes[name]
                read = [source for source in node.all_input_nodes if source.name in unit.inputs]
                inputs = {source: self._specs[source.name] for source in read}
                if node.target in WEIGHTED:
                    weight = node.args[1]
                    assert isinstance(weight, Node)
                    inputs[weight] = _weight_spec(self._planned.weight_scales[name], self._per_channel)
                output = self._specs[name] if name == unit.output else None
                node.meta[_ANNOTATION] = QuantizationAnnotation(
                    input_qspec_map=inputs, output_qspec=output, _annotated=True
                )
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing to validate: the placement came from this graph."""


def _step_weights(planned: Plan, steps: Mapping[str, str]) -> None:
    """Put weights on their grid where the calibration says, so that rounding to nearest keeps them."""
    nodes = {node.name: node for node in planned.graph_module.graph.nodes}
    for name, (weight, scales) in rounded_weights(planned).items():
        by = unpacked(steps.get(name, ""), weight.shape, name)
        rows = scales.reshape(-1, *(1,) * (weight.ndim - 1))
        integers = (weight.detach().double() / rows).round() + by
        if integers.abs().max() > WEIGHT_LIMIT:
            raise misfit(name, weight.numel(), f"some that lead beyond {WEIGHT_LIMIT}")
        if name in planned.paired and (pair_sums(integers.numpy()) > PAIR_LIMIT).any():
            raise misfit(name, weight.numel(), f"neighbours that lead beyond {PAIR_LIMIT} together")
        replace_weight(planned.graph_module, nodes[name], moved(weight, scales, by))


def _shift_biases(graph_module: GraphModule, shifts: Mapping[str, Sequence[float]]) -> None:
    for name, bias in biased_convolutions(graph_module).items():
        if len(shifts.get(name, ())) != len(bias):
            raise BundleError(
                f"the bias shifts of the calibration do not fit {name}",
                got=f"{len(shifts[name])} of them" if name in shifts else "none",
                expected=f"{len(bias)}, one for each channel",
                fix="calibrate again: export with --calibration DIR",
            )
        with torch.no_grad():
            bias.add_(torch.tensor(shifts[name]))


def _round_biases(planned: Plan) -> None:
    """Put biases on the grid of the integer kernels' sums, input scale x weight scale.

    The kernels add them as int32. A bias off the grid would leave the float reference a fraction of a step
    away from every kernel, and the rounding of the next layers turns that into whole steps.
    """
    graph_module = planned.graph_module
    for node, input_scale, bias in _biased_units(graph_module, planned.placement, planned.params):
        step = input_scale * planned.weight_scales[node.name]
        with torch.no_grad():
            bias.copy_((bias.double() / step).round() * step)


def _biased_units(
    graph_module: GraphModule, placement: Placement, params: Mapping[str, QuantParams]
) -> Iterator[tuple[Node, float, torch.Tensor]]:
    """Quantized operators with a bias: the node, the scale of its input, the bias."""
    nodes = {node.name: node for node in graph_module.graph.nodes}
    for unit in placement.units:
        node = nodes[unit.nodes[0]]
        if unit.kind == "weighted" and len(node.args) > 2:
            bias = parameter_of(graph_module, node.args[2])
            if bias is not None:
                yield node, params[unit.inputs[0]].scale, bias


def _activation_spec(params: QuantParams, encoding: Encoding) -> FixedQParamsQuantizationSpec:
    return FixedQParamsQuantizationSpec(
        dtype=encoding.dtype,
        scale=params.scale,
        zero_point=params.zero_point,
        quant_min=encoding.quant_min,
        quant_max=encoding.quant_max,
        qscheme=torch.per_tensor_symmetric if encoding.symmetric else torch.per_tensor_affine,
    )


class _GivenScales(ObserverBase):  # type: ignore[misc]  # torchao is untyped
    """Takes the place of an observer: the scales are known before the graph runs.

    Args:
        scales: float64, `[channels]` or `[1]`.
        options: Of `QuantizationSpec`.
    """

    def __init__(self, scales: torch.Tensor, **options: Any) -> None:
        super().__init__(dtype=options["dtype"])
        self.qscheme, self.ch_axis = options["qscheme"], 0
        self.quant_min, self.quant_max = options["quant_min"], options["quant_max"]
        self._scales = scales.float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Nothing is observed."""
        return x

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scales and zero points, which are 0."""
        return self._scales, torch.zeros_like(self._scales, dtype=torch.int64)


def _weight_spec(scales: torch.Tensor, per_channel: bool) -> QuantizationSpec:
    return QuantizationSpec(
        dtype=torch.int8,
        observer_or_fake_quant_ctr=_GivenScales.with_args(scales=scales),
        quant_min=-WEIGHT_LIMIT,
        quant_max=WEIGHT_LIMIT,
        qscheme=torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric,
        ch_axis=0 if per_channel else None,
        is_dynamic=False,
    )
