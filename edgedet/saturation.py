"""Integer layers that x86 processors without VNNI compute wrongly, found in their weights alone.

Without VNNI, ONNX Runtime and OpenVINO multiply uint8 activations with int8 weights by `vpmaddubsw`, which
adds the products of two neighbours in a saturating 16-bit integer (Intel's instruction set reference). With
activations of at most 255 the sum fits where |w1| + |w2| <= 128 for every two neighbours of one sign, since
255 * 128 = 32,640. Weights of different signs cancel, and depthwise kernels add no neighbours.

Neighbours are input channels 2i and 2i + 1 at one kernel position, in every kernel that was looked at. Where
the channels of a group are odd in number, kernels pad or flatten them in different ways, so that any two
weights of an output may be neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PAIR_LIMIT = 128


@dataclass(frozen=True, slots=True, eq=False)
class IntegerLayer:
    """A layer of an artifact that multiplies integers.

    Attributes:
        name: As the artifact names it.
        weight: `[outputs, inputs of a group, ...]`, int8; None where the file does not tell it. Of anything
            else nothing is proved.
        is_depthwise: Each channel has one filter of its own.
    """

    name: str
    weight: NDArray[Any] | None
    is_depthwise: bool = False

    @property
    def is_read(self) -> bool:
        """Whether it is known which of its sums can overflow."""
        if self.is_depthwise:
            return True
        return self.weight is not None and self.weight.dtype == np.int8 and self.weight.ndim >= 2


@dataclass(frozen=True, slots=True)
class Overflow:
    """A layer whose sums can overflow.

    Attributes:
        layer: Its name.
        channels: How many of its output channels can overflow.
        largest: The largest |w1| + |w2| of two neighbours of one sign.
    """

    layer: str
    channels: int
    largest: int


def pair_sums(weight: NDArray[Any]) -> NDArray[Any]:
    """The largest |w1| + |w2| of two neighbours of one sign, for each output, `[outputs]`, in their dtype.

    Args:
        weight: `[outputs, inputs of a group, ...]`, floats or integers wider than 8 bits; not depthwise.
    """
    sums: NDArray[Any] = np.maximum(_positive_sums(weight), _positive_sums(-weight))
    return sums


def _positive_sums(weight: NDArray[Any]) -> NDArray[Any]:
    outputs, inputs = weight.shape[:2]
    positive = np.maximum(weight, 0).reshape(outputs, inputs, -1)
    if inputs % 2 == 0:
        first, second = positive[:, ::2], positive[:, 1::2]
        # A single weight has room for all of its 127 steps: only two of one sign can overflow.
        both = np.where((first > 0) & (second > 0), first + second, 0)
        return np.asarray(both.max((1, 2), initial=0))
    flat = positive.reshape(outputs, -1)
    if flat.shape[1] < 2:
        return np.zeros(outputs, weight.dtype)
    largest = np.partition(flat, -2, axis=1)[:, -2:]
    return np.asarray(np.where(largest[:, 0] > 0, largest.sum(1), 0))


def overflows(layers: Iterable[IntegerLayer]) -> tuple[Overflow, ...]:
    """The layers that can overflow, of those whose weights are known."""
    found = []
    for layer in layers:
        weight = layer.weight
        if weight is None or layer.is_depthwise or not layer.is_read:
            continue
        sums = pair_sums(weight.astype(np.int16))
        if (sums > PAIR_LIMIT).any():
            found.append(Overflow(layer.name, int((sums > PAIR_LIMIT).sum()), int(sums.max())))
    return tuple(found)
