"""What quantization does to the output of each convolution, taken out of its weights and its bias.

Layers are corrected in the order of the graph, each behind those before it, with all images one operator
further at a time and the float graph beside: one pass. Weights are rounded to give the float output from what
the layer really reads (`rounding.py`). Rounding also moves the mean of everything that a channel gives, the
same way for every image, which a bias can undo at no cost (Nagel et al., Data-Free Quantization, ICCV 2019,
section 4.2, here with measured means).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgedet.errors import DataError
from edgedet.models.capture import Captured, parameter_of
from edgedet.models.threads import one_thread
from edgedet.progress import Track, silent
from edgedet_calibration.encodings import Encoding
from edgedet_calibration.equalization import equalized
from edgedet_calibration.images import LOOKED_AT_AGAIN, CalibrationImages
from edgedet_calibration.patches import Patches
from edgedet_calibration.placement import CONVOLUTIONS
from edgedet_calibration.quantize import biased_convolutions, plan, rounded_weights, with_quantizers
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.rounding import LARGEST_FAN_IN, moments_of, steps_of
from edgedet_calibration.simulate import is_rounding, simulated
from edgedet_calibration.stats import CorrectionOrigin, Corrections, Stats
from edgedet_calibration.walk import Walk
from edgedet_calibration.weight_steps import moved, packed

_aten = torch.ops.aten


@one_thread()
def with_corrections(
    captured: Captured,
    stats: Stats,
    recipe: Recipe,
    encodings: Iterable[Encoding],
    calibration: CalibrationImages,
    track: Track = silent,
) -> Stats:
    """The statistics with what corrects weights and biases of every encoding that is to be written.

    Args:
        captured: The float graph.
        stats: Collected from it.
        recipe: Says what is quantized, and what of it is corrected: if nothing is, `stats` are given back.
        encodings: Of the artifacts to come.
        calibration: Where `stats` were collected: of those images, up to 32 are looked at again.
        track: Shows progress.

    Raises:
        DataError: None of those images could be read.
    """
    if not recipe.corrects:
        return stats
    tensors = calibration.again(track)
    if not tensors:
        raise DataError(
            "weights and biases cannot be corrected",
            got="not one readable image among those that are looked at again",
            expected=f"some of {LOOKED_AT_AGAIN}",
            fix="repair the images of --calibration, or give more of them",
        )
    float_graph = equalized(captured, stats.channel_factors).graph_module
    corrections = {}
    for name, encoding in {encoding.arithmetic: encoding for encoding in encodings}.items():
        correction = _Correction(captured, stats, recipe, encoding, float_graph, tensors)
        correction.run(track)
        corrections[name] = Corrections(
            weight_steps={node: packed(steps) for node, steps in correction.steps.items()},
            bias_shifts=correction.shifts,
        )
    return stats.model_copy(
        update={"corrections": corrections, "correction_origin": CorrectionOrigin.of(recipe)}
    )


class _Correction:
    """The correction of one encoding.

    Attributes:
        shifts: What to add to biases, by node name.
        steps: How many steps weights are moved from where they are nearest, by node name.
    """

    def __init__(
        self,
        captured: Captured,
        stats: Stats,
        recipe: Recipe,
        encoding: Encoding,
        float_graph: GraphModule,
        tensors: Sequence[Tensor],
    ) -> None:
        plain = recipe.model_copy(update={"bias_correction": False, "rounding": "nearest"})
        planned = plan(captured, stats, plain, encoding)
        self._recipe, self._encoding = recipe, encoding
        self._weights = rounded_weights(planned)
        self._paired = planned.paired
        quantized = simulated(with_quantizers(planned, stats, plain, encoding, fold_weights=True))
        self._float_graph, self._biased = float_graph, frozenset(biased_convolutions(float_graph))
        self._float, self._integer = Walk(float_graph, tensors), Walk(quantized, tensors)
        self.shifts: dict[str, tuple[float, ...]] = {}
        self.steps: dict[str, Tensor] = {}

    def run(self, track: Track) -> None:
        """Correct every convolution."""
        nodes = [node for node in self._integer.nodes if node.op != "output"]
        with torch.inference_mode():
            for node in track(nodes, f"Correcting for {self._encoding.name}", len(nodes)):
                is_convolution = node.target in CONVOLUTIONS
                values = self._corrected(node) if is_convolution else self._integer.run(node)
                self._integer.keep(node, values)

    def _corrected(self, node: Node) -> list[Tensor]:
        """What a convolution gives once it is corrected."""
        twin = self._float.advance_to(node.name)
        wanted = self._float.run(twin)
        missing = self._missing(node, twin)
        learns = self._recipe.rounding == "least_squares" and node.name in self._weights
        weight = self._learn(node, twin, wanted, missing) if learns else None
        self._float.keep(twin, wanted)
        values = self._integer.run(node, weight)
        if not (self._recipe.bias_correction and node.name in self._biased):
            return values
        shift = _mean_of_all(wanted) - _mean_of_all(values)
        if missing is not None:
            shift += _mean_of_all(missing)
        self.shifts[node.name] = tuple(shift.tolist())
        return [value + shift.float().reshape(1, -1, 1, 1) for value in values]

    def _learn(
        self, node: Node, twin: Node, wanted: Sequence[Tensor], missing: Sequence[Tensor] | None
    ) -> Tensor:
        """The weight that gives the wanted output from what the layer reads."""
        weight, scales = self._weights[node.name]
        steps = torch.zeros_like(weight, dtype=torch.int8)
        if weight[0].numel() <= LARGEST_FAN_IN:
            patches = Patches(node, weight)
            is_free = self._recipe.bias_correction and node.name in self._biased
            bias = None if is_free else self._bias(twin, patches.groups)
            folds: tuple[list[tuple[Tensor, Tensor]], ...] = ([], [])
            for i, (read, given) in enumerate(zip(self._integer.values(_source(node)), wanted, strict=True)):
                target = given if missing is None else given + missing[i]
                read, target = patches.sampled(read, target, i)
                folds[i % 2].append((read, target if bias is None else target - bias))
            is_paired = node.name in self._paired
            steps = steps_of(weight, scales, moments_of(folds, centred=is_free), pair_safe=is_paired)
        self.steps[node.name] = steps
        return moved(weight, scales, steps)

    def _bias(self, twin: Node, groups: int) -> Tensor | None:
        """What a convolution of the float graph adds, in the shape of a sample of its output."""
        bias = parameter_of(self._float_graph, twin.args[2]) if len(twin.args) > 2 else None
        return None if bias is None else bias.reshape(groups, -1, 1)

    def _missing(self, node: Node, twin: Node) -> list[Tensor] | None:
        """What the other operand of the sum that a convolution's output goes into has lost by now."""
        if self._recipe.rounding == "nearest":
            return None
        others = [_other_operand(one) for one in (node, twin)]
        found, wanted = others
        if found is None or wanted is None or not (self._integer.holds(found) and self._float.holds(wanted)):
            return None
        trues, reads = self._float.values(wanted), self._integer.values(found)
        if trues[0].shape != twin.meta["val"].shape:  # it is spread over the output
            return None
        return [true - read for true, read in zip(trues, reads, strict=True)]


def _mean_of_all(values: Sequence[Tensor]) -> Tensor:
    """Means of the channels of `[1, c, h, w]` tensors, `[c]`, float64."""
    return torch.stack([value.mean(dim=(0, 2, 3)).double() for value in values]).mean(0)


def _source(convolution: Node) -> Node:
    source = convolution.args[0]
    assert isinstance(source, Node)
    return source


def _other_operand(convolution: Node) -> Node | None:
    """What a convolution's output is added to, where nothing but its own quantization stands between."""
    given = convolution
    while len(given.users) == 1:
        (reader,) = given.users
        if reader.target is _aten.add.Tensor and len(reader.all_input_nodes) == 2:
            (other,) = (read for read in reader.all_input_nodes if read is not given)
            return other
        if not is_rounding(reader):
            break
        given = reader
    return None
