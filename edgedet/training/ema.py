"""A moving average of weights, which generalises better than the last step's (Polyak and Juditsky, 1992)."""

from __future__ import annotations

import copy

import torch
from torch import nn


class MovingAverage:
    """Keeps the average of a module's parameters and buffers in a copy of it.

    The decay is small at first, `(1 + t) / (10 + t)`, so that the random start is soon forgotten.

    Args:
        module: What is trained.
        decay: Upper bound; 0 keeps the last weights.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after step number `step`, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        source = module.state_dict()
        averages, values = [], []
        for key, average in self.module.state_dict().items():
            if average.is_floating_point():
                averages.append(average)
                values.append(source[key])
            else:
                average.copy_(source[key])
        torch._foreach_lerp_(averages, values, 1 - decay)
