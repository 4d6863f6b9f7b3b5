"""Statistics and an encoding to a fake-quantized torch graph: source and reference of one INT8 artifact.

torchao's PT2E machinery inserts the quantizers; where they go and with what scales is decided here, and every
scale is fixed before it runs. The same statistics give every encoding, so that artifacts differ in type, not
in range.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import (
    FixedQParamsQuantizationSpec,
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
)

from edgedet import registry
from edgedet.models.capture import Captured, parameter_of
from edgedet_calibration.encodings import Encoding, QuantParams
from edgedet_calibration.lower import NOT_LOWERED, Lowered, Range, lower
from edgedet_calibration.placement import WEIGHTED, Placement, place
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import Histogram, Stats

# Weights are -127..127: with -128 the 16-bit sums of older x86 kernels can overflow.
WEIGHT_LIMIT = 127

_ANNOTATION = "quantization_annotation"
# Half of what an int32 holds: the other half is for the products.
_LARGEST_BIAS = 2.0**30
# A channel of zeros still needs a positive scale.
SMALLEST_WEIGHT_SCALE = 2.0**-20


def quant_params(
    placement: Placement, stats: Stats, recipe: Recipe, encoding: Encoding, lowered: Lowered = NOT_LOWERED
) -> dict[str, QuantParams]:
    """Scale and zero point of every quantized tensor; those that share a range get the same."""
    fixed = {placement.ranges[n]: limits for n, limits in lowered.fixed.items() if n in placement.ranges}
    sources = {lowered.source(name): group for name, group in placement.ranges.items() if group not in fixed}
    chosen = _learned(sources, stats.ranges) if stats.ranges else _observed(sources, stats, recipe)
    params = {}
    for name, group in placement.ranges.items():
        low, high = fixed.get(group) or chosen[group]
        factor = lowered.factor(name)
        params[name] = encoding.params(factor * low, factor * high)
    return params


def _observed(sources: Mapping[str, str], stats: Stats, recipe: Recipe) -> dict[str, Range]:
    """The range of every group, chosen from the histogram of all that share it."""
    merged: dict[str, Histogram] = {}
    for source, group in sources.items():
        histogram = stats.tensors[source].histogram()
        merged[group] = merged[group].merged(histogram) if group in merged else histogram
    choose = registry.OBSERVERS.load(recipe.observer)
    return {group: choose(histogram, recipe) for group, histogram in merged.items()}


def _learned(sources: Mapping[str, str], ranges: Mapping[str, Range]) -> dict[str, Range]:
    """The range of every group, where training gave each tensor one."""
    chosen: dict[str, Range] = {}
    for source, group in sources.items():
        low, high = ranges[source]
        other = chosen.get(group, (low, high))
        chosen[group] = (min(low, other[0]), max(high, other[1]))
    return chosen


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
        BundleError: The statistics are of another detector.
    """
    graph_module = copy.deepcopy(captured.graph_module)
    lowered = NOT_LOWERED if encoding.fuses_epilogues else lower(graph_module, recipe.keeps_float)
    placement = place(
        graph_module,
        recipe.keeps_float,
        fuses_epilogues=encoding.fuses_epilogues,
        constants=lowered.fixed,
    )
    wanted = {lowered.source(name) for name in placement.ranges if name not in lowered.fixed}
    stats.check_fits(captured.spec.provenance.checkpoint_sha256, captured.spec.input, wanted)
    params = quant_params(placement, stats, recipe, encoding, lowered)
    if recipe.bias_correction:
        _shift_biases(graph_module, stats.bias_shifts.get(encoding.arithmetic, {}))
    smallest = {}
    if not encoding.symmetric:  # TensorRT adds biases in float
        smallest = _round_biases(graph_module, placement, params, recipe)
    quantizer = PlacementQuantizer(placement, params, recipe, encoding, smallest)
    prepared = prepare_pt2e(graph_module, quantizer)
    with torch.no_grad():
        prepared(*captured.example_inputs)  # weight observers look at weights when the graph runs
    converted: GraphModule = convert_pt2e(prepared, fold_quantize=fold_weights)
    return converted


class PlacementQuantizer(Quantizer):  # type: ignore[misc]  # torchao is untyped
    """Writes a placement and its fixed scales as PT2E annotations.

    Args:
        placement: What is quantized.
        params: Of every tensor of the placement.
        recipe: How weights are quantized.
        encoding: How activations are written.
        smallest: The smallest weight scale of layers that have one of their own, by node name.
    """

    def __init__(
        self,
        placement: Placement,
        params: dict[str, QuantParams],
        recipe: Recipe,
        encoding: Encoding,
        smallest: Mapping[str, float],
    ) -> None:
        super().__init__()
        self._placement = placement
        self._specs = {name: _activation_spec(p, encoding) for name, p in params.items()}
        self._recipe, self._smallest = recipe, smallest

    def annotate(self, model: GraphModule) -> GraphModule:
        """Annotate every unit of the placement."""
        nodes = {node.name: node for node in model.graph.nodes}
        for unit in self._placement.units:
            for name in unit.nodes:
                node = nodes[name]
                read = [source for source in node.all_input_nodes if source.name in unit.inputs]
                inputs = {source: self._specs[source.name] for source in read}
                if node.target in WEIGHTED:
                    weight = node.args[1]
                    assert isinstance(weight, Node)
                    inputs[weight] = _weight_spec(
                        self._recipe, self._smallest.get(name, SMALLEST_WEIGHT_SCALE)
                    )
                output = self._specs[name] if name == unit.output else None
                node.meta[_ANNOTATION] = QuantizationAnnotation(
                    input_qspec_map=inputs, output_qspec=output, _annotated=True
                )
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing to validate: the placement came from this graph."""


def _shift_biases(graph_module: GraphModule, shifts: Mapping[str, Sequence[float]]) -> None:
    for node in graph_module.graph.nodes:
        if node.name in shifts:
            bias = parameter_of(graph_module, node.args[2])
            assert bias is not None
            with torch.no_grad():
                bias.add_(torch.tensor(shifts[node.name]))


def _round_biases(
    graph_module: GraphModule, placement: Placement, params: dict[str, QuantParams], recipe: Recipe
) -> dict[str, float]:
    """Put biases on the grid of the integer kernels' sums, input scale x weight scale.

    The kernels add them as int32. A bias off the grid would leave the float reference a fraction of a step
    away from every kernel, and the rounding of the next layers turns that into whole steps.

    Returns:
        The smallest weight scale of every layer, by node name.
    """
    nodes = {node.name: node for node in graph_module.graph.nodes}
    smallest = {}
    for unit in placement.units:
        node = nodes[unit.nodes[0]]
        if unit.kind != "weighted":
            continue
        weight = parameter_of(graph_module, node.args[1])
        bias = parameter_of(graph_module, node.args[2]) if len(node.args) > 2 else None
        assert weight is not None
        if bias is None:
            continue
        input_scale = params[unit.inputs[0]].scale
        smallest[node.name] = smallest_weight_scale(bias, input_scale)
        rows = weight.detach().abs().flatten(1).amax(1)
        largest = rows if recipe.weights == "per_channel" else rows.amax().expand_as(rows)
        step = input_scale * (largest.double() / WEIGHT_LIMIT).clamp_min(smallest[node.name])
        with torch.no_grad():
            bias.copy_((bias.double() / step).round() * step)
    return smallest


def smallest_weight_scale(bias: torch.Tensor, input_scale: float) -> float:
    """The smallest scale of a layer's weights at which the sums of its kernel hold its bias.

    Training leaves channels whose weights are all but 0, and whose bias is all that they compute.
    """
    return max(SMALLEST_WEIGHT_SCALE, float(bias.detach().abs().max()) / (_LARGEST_BIAS * input_scale))


def _activation_spec(params: QuantParams, encoding: Encoding) -> FixedQParamsQuantizationSpec:
    return FixedQParamsQuantizationSpec(
        dtype=encoding.dtype,
        scale=params.scale,
        zero_point=params.zero_point,
        quant_min=encoding.quant_min,
        quant_max=encoding.quant_max,
        qscheme=torch.per_tensor_symmetric if encoding.symmetric else torch.per_tensor_affine,
    )


def _weight_spec(recipe: Recipe, smallest_scale: float) -> QuantizationSpec:
    per_channel = recipe.weights == "per_channel"
    observer = PerChannelMinMaxObserver if per_channel else MinMaxObserver
    return QuantizationSpec(
        dtype=torch.int8,
        observer_or_fake_quant_ctr=observer.with_args(eps=smallest_scale),
        quant_min=-WEIGHT_LIMIT,
        quant_max=WEIGHT_LIMIT,
        qscheme=torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric,
        ch_axis=0 if per_channel else None,
        is_dynamic=False,
    )
