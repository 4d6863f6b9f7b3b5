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
from edgedet.errors import CheckpointError
from edgedet.models.capture import Captured, parameter_of
from edgedet_calibration.encodings import Encoding, QuantParams
from edgedet_calibration.lower import NOT_LOWERED, Lowered, lower
from edgedet_calibration.placement import WEIGHTED, Placement, place
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import Histogram, Stats

# Weights are -127..127: with -128 the 16-bit sums of older x86 kernels can overflow.
WEIGHT_LIMIT = 127

_ANNOTATION = "quantization_annotation"
# A channel of zeros still needs a positive scale, and one that leaves room for its bias among 32-bit sums.
_SMALLEST_WEIGHT_SCALE = 2.0**-20


def quant_params(
    placement: Placement, stats: Stats, recipe: Recipe, encoding: Encoding, lowered: Lowered = NOT_LOWERED
) -> dict[str, QuantParams]:
    """Scale and zero point of every quantized tensor; those that share a range get the same."""
    fixed = {placement.ranges[n]: limits for n, limits in lowered.fixed.items() if n in placement.ranges}
    merged: dict[str, Histogram] = {}
    for name, group in placement.ranges.items():
        if group not in fixed:
            histogram = stats.tensors[lowered.source(name)].histogram()
            merged[group] = merged[group].merged(histogram) if group in merged else histogram
    choose = registry.OBSERVERS.load(recipe.observer)
    chosen = {group: choose(histogram, recipe) for group, histogram in merged.items()}
    params = {}
    for name, group in placement.ranges.items():
        low, high = fixed.get(group) or chosen[group]
        factor = lowered.factor(name)
        params[name] = encoding.params(factor * low, factor * high)
    return params


def placed(captured: Captured, recipe: Recipe, encoding: Encoding) -> tuple[GraphModule, Lowered, Placement]:
    """A copy of a captured graph in the operators of an encoding, and what is quantized in it."""
    graph_module = copy.deepcopy(captured.graph_module)
    lowered = NOT_LOWERED if encoding.fuses_epilogues else lower(graph_module, recipe.keeps_float)
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
        BundleError: The statistics are of another detector.
        CheckpointError: A bias does not fit the integers of the kernels.
    """
    graph_module, lowered, placement = placed(captured, recipe, encoding)
    wanted = {lowered.source(name) for name in placement.ranges if name not in lowered.fixed}
    stats.check_fits(
        captured.spec.provenance.checkpoint_sha256,
        captured.spec.input,
        wanted,
        equalization=recipe.equalization,
    )
    params = quant_params(placement, stats, recipe, encoding, lowered)
    if recipe.bias_correction:
        _shift_biases(graph_module, stats.bias_shifts.get(encoding.arithmetic, {}))
    if not encoding.symmetric:  # TensorRT adds biases in float
        _round_biases(graph_module, placement, params, recipe)
    quantizer = PlacementQuantizer(placement, params, recipe, encoding)
    prepared = prepare_pt2e(graph_module, quantizer)
    with torch.no_grad():
        prepared(*captured.example_inputs)  # weight observers look at weights when the graph runs
    converted: GraphModule = convert_pt2e(prepared, fold_quantize=fold_weights)
    return converted


class PlacementQuantizer(Quantizer):  # type: ignore[misc]  # torchao is untyped
    """Writes a placement and its fixed scales as PT2E annotations."""

    def __init__(
        self, placement: Placement, params: dict[str, QuantParams], recipe: Recipe, encoding: Encoding
    ) -> None:
        super().__init__()
        self._placement = placement
        self._specs = {name: _activation_spec(p, encoding) for name, p in params.items()}
        self._weights = _weight_spec(recipe)

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
                    inputs[weight] = self._weights
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
) -> None:
    """Put biases on the grid of the integer kernels' sums, input scale x weight scale.

    The kernels add them as int32. A bias off the grid would leave the float reference a fraction of a step
    away from every kernel, and the rounding of the next layers turns that into whole steps.
    """
    nodes = {node.name: node for node in graph_module.graph.nodes}
    for unit in placement.units:
        node = nodes[unit.nodes[0]]
        bias = (
            parameter_of(graph_module, node.args[2])
            if unit.kind == "weighted" and len(node.args) > 2
            else None
        )
        if bias is None:
            continue
        weight = parameter_of(graph_module, node.args[1])
        assert weight is not None
        rows = weight.detach().abs().flatten(1).amax(1)
        largest = rows if recipe.weights == "per_channel" else rows.amax().expand_as(rows)
        step = params[unit.inputs[0]].scale * (largest.double() / WEIGHT_LIMIT).clamp_min(
            _SMALLEST_WEIGHT_SCALE
        )
        steps = (bias.double() / step).round()
        if steps.abs().max() >= 2.0**31:
            raise CheckpointError(
                f"{node.name} cannot be quantized",
                got=f"a bias of {float(bias.abs().max()):.3g} beside inputs and weights that are all but 0",
                expected="a bias of less than 2^31 steps of input scale x weight scale",
                fix=f'keep it float: float_layers = ["{node.name}"] in a file for --recipe',
            )
        with torch.no_grad():
            bias.copy_(steps * step)


def _activation_spec(params: QuantParams, encoding: Encoding) -> FixedQParamsQuantizationSpec:
    return FixedQParamsQuantizationSpec(
        dtype=encoding.dtype,
        scale=params.scale,
        zero_point=params.zero_point,
        quant_min=encoding.quant_min,
        quant_max=encoding.quant_max,
        qscheme=torch.per_tensor_symmetric if encoding.symmetric else torch.per_tensor_affine,
    )


def _weight_spec(recipe: Recipe) -> QuantizationSpec:
    per_channel = recipe.weights == "per_channel"
    observer = PerChannelMinMaxObserver if per_channel else MinMaxObserver
    return QuantizationSpec(
        dtype=torch.int8,
        observer_or_fake_quant_ctr=observer.with_args(eps=_SMALLEST_WEIGHT_SCALE),
        quant_min=-WEIGHT_LIMIT,
        quant_max=WEIGHT_LIMIT,
        qscheme=torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric,
        ch_axis=0 if per_channel else None,
        is_dynamic=False,
    )
