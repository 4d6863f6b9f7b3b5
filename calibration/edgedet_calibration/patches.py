"""What a convolution reads and gives at some positions of its output.

Neighbouring positions read nearly the same values, so that a grid over the map tells second moments as well
as all of it, in a fraction of the time. The grid of each image begins at another position.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node

# The most positions of one image; a map that has fewer is read whole.
POSITIONS = 1024

_Pair = tuple[int, int]


class Patches:
    """The geometry of one convolution.

    Args:
        convolution: The node; its arguments are those of `aten.conv2d`.
        weight: Its weight, `[o, i, h, w]`.

    Attributes:
        groups: Of its channels.
        columns: How many values each output reads.
    """

    def __init__(self, convolution: Node, weight: Tensor) -> None:
        given: tuple[Any, ...] = (*convolution.args[3:], None, None, None, None)
        stride, padding, dilation, groups = given[:4]
        self._kernel = int(weight.shape[2]), int(weight.shape[3])
        self._stride, self._dilation = _pair(stride, 1), _pair(dilation, 1)
        self._padding = padding if isinstance(padding, str) else _pair(padding, 0)
        self.groups, self.columns = int(groups or 1), weight[0].numel()

    def sampled(self, read: Tensor, given: Tensor, image: int) -> tuple[Tensor, Tensor]:
        """Both at the positions of one image.

        Args:
            read: The input, `[1, c, h, w]`.
            given: A value of the output's shape, `[1, o, h, w]`.
            image: Its number, which moves the grid.

        Returns:
            `[groups, columns, positions]`, in the order of the weight, and `[groups, outputs, positions]`.
        """
        height, width = given.shape[2:]
        step = math.ceil(math.sqrt(height * width / POSITIONS))
        top, left = image % step, image // step % step
        outputs = given[0, :, top::step, left::step]
        rows, columns = outputs.shape[1:]
        padded = self._padded(read[0])
        taps = []
        for a in range(self._kernel[0]):
            for b in range(self._kernel[1]):
                down = _along(top, step, rows, self._stride[0], a * self._dilation[0])
                across = _along(left, step, columns, self._stride[1], b * self._dilation[1])
                taps.append(padded[:, down, across])
        patches = torch.stack(taps, 1).reshape(self.groups, self.columns, rows * columns)
        return patches, outputs.reshape(self.groups, -1, rows * columns)

    def _padded(self, value: Tensor) -> Tensor:
        if self._padding == "same":
            total = [d * (k - 1) for d, k in zip(self._dilation, self._kernel, strict=True)]
            before = total[0] // 2, total[1] // 2
            return F.pad(value, (before[1], total[1] - before[1], before[0], total[0] - before[0]))
        if self._padding == "valid" or self._padding == (0, 0):
            return value
        rows, columns = (int(size) for size in self._padding)
        return F.pad(value, (columns, columns, rows, rows))


def _along(start: int, step: int, count: int, stride: int, tap: int) -> slice:
    """Where one tap of the kernel reads along one axis."""
    first = start * stride + tap
    return slice(first, first + (count - 1) * step * stride + 1, step * stride)


def _pair(value: Any, default: int) -> _Pair:
    both = [default] if value is None else list(value)
    return int(both[0]), int(both[-1])
