"""The scales of int8 weights: as small as the largest weight, the bias and x86 kernels without VNNI allow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from edgedet.saturation import PAIR_LIMIT

# Weights are -127..127: symmetric, as the TFLite specification asks for.
WEIGHT_LIMIT = 127
# A channel of zeros still needs a positive scale.
SMALLEST_WEIGHT_SCALE = 2.0**-20
# Half of what an int32 holds: the other half is for the products.
_LARGEST_BIAS = 2.0**30
# Two weights whose sum is the limit would both be rounded up by a float32 that is an ulp too large.
_PAIR_MARGIN = 1 + 2.0**-16


@dataclass(frozen=True, slots=True)
class ScaleRule:
    """What decides the scales of one layer's weights.

    Attributes:
        per_channel: Each output channel has its own.
        pair_safe: No two neighbours of one sign exceed `edgedet.saturation.PAIR_LIMIT` together.
        floor: The smallest scale.
    """

    per_channel: bool = True
    pair_safe: bool = False
    floor: float = SMALLEST_WEIGHT_SCALE

    def scales(self, weight: Tensor) -> Tensor:
        """Scales of a weight `[o, i, ...]`: float64 of float32 values, `[o]`, or `[1]` for the tensor."""
        steps = largest_steps(weight, pair_safe=self.pair_safe)
        if not self.per_channel:
            steps = steps.amax().reshape(1)
        return steps.clamp_min(self.floor).float().double()


def largest_steps(weight: Tensor, *, pair_safe: bool) -> Tensor:
    """The scale that each output channel needs, `[o]`, float64; 0 for a channel of zeros."""
    given = weight.detach()
    needed = given.abs().flatten(1).amax(1).double() / WEIGHT_LIMIT
    if pair_safe:
        pairs = torch.maximum(_positive_pair_sums(given), _positive_pair_sums(-given))
        needed = torch.maximum(needed, pairs.double() * (_PAIR_MARGIN / PAIR_LIMIT))
    return needed


def _positive_pair_sums(weight: Tensor) -> Tensor:
    """As in `edgedet.saturation`, on the device that the weight is on: training asks in every step."""
    positive = weight.clamp_min(0).flatten(2)
    if weight.shape[1] % 2 == 0:
        first, second = positive[:, ::2], positive[:, 1::2]
        return ((first + second) * ((first > 0) & (second > 0))).amax((1, 2))
    flat = positive.flatten(1)
    if flat.shape[1] < 2:
        return flat.new_zeros(len(flat))
    largest = flat.topk(2, dim=1).values
    return largest.sum(1) * (largest[:, 1] > 0)


def smallest_weight_scale(bias: Tensor, input_scale: float) -> float:
    """The smallest scale of a layer's weights at which the sums of its kernel hold its bias.

    Training leaves channels whose weights are all but 0, and whose bias is all that they compute.
    """
    return max(SMALLEST_WEIGHT_SCALE, float(bias.detach().abs().max()) / (_LARGEST_BIAS * input_scale))


def is_depthwise(node: Node, weight: Tensor) -> bool:
    """Whether each channel of a convolution has one filter of its own: kernels add no neighbours then."""
    groups = node.args[6] if len(node.args) > 6 else 1
    return bool(groups == len(weight) > 1) and weight.shape[1] == 1
