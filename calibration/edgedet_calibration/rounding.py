"""Weights rounded so that the output of a layer, rather than each weight, is closest to that in float.

A layer of an integer model reads what the layers before it have already changed. Its weights are first fitted
to that: by least squares they give the float output from the integer input (the asymmetric reconstruction of
Nagel et al., AdaRound, ICML 2020, section 4). Then they are rounded one column after another, and the error
of each is spread over those still to be rounded (Frantar et al., GPTQ, ICLR 2023). Both need only second
moments of the inputs, and no learning rate. Their cost grows with the cube of what an output reads.

Where two neighbours share 16 bits (`edgedet.saturation`), a weight has the room that its neighbour left.

Few images show a layer less than it has weights. Both steps are therefore damped: the more, the less what
half of the images taught helps on the other half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgedet.saturation import PAIR_LIMIT
from edgedet_calibration.weight_scales import WEIGHT_LIMIT

# Shares of the mean moment that are added to all of them; the last leaves weights all but alone.
_DAMPINGS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0, 1000.0)
# Columns that are rounded before the others hear of it.
_BLOCK = 64
# A layer whose outputs read more than this would take minutes and gigabytes.
LARGEST_FAN_IN = 2304


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Second moments of what a layer reads and should give, over some samples.

    Attributes:
        count: How many samples.
        covariance: Of the columns that it reads, `[groups, columns, columns]`.
        wanted: Of the wanted outputs with those columns, `[groups, outputs, columns]`.
    """

    count: int
    covariance: Tensor
    wanted: Tensor

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets of samples."""
        count = self.count + other.count
        mine, its = self.count / count, other.count / count
        return Moments(
            count,
            mine * self.covariance + its * other.covariance,
            mine * self.wanted + its * other.wanted,
        )


def moments_of(folds: Sequence[Sequence[tuple[Tensor, Tensor]]], *, centred: bool) -> list[Moments]:
    """The moments of each fold of samples.

    Args:
        folds: Of each fold, what was read, `[groups, columns, n]`, and wanted, `[groups, outputs, n]`.
        centred: The bias can take up any mean, so that moments are about those of all samples.
    """
    joined = [[torch.cat(parts, 2) for parts in zip(*fold, strict=True)] for fold in folds if fold]
    if centred:
        count = sum(read.shape[2] for read, _ in joined)
        means = [sum(one.sum(2, keepdim=True) for one in part) / count for part in zip(*joined, strict=True)]
        for fold in joined:
            for values, mean in zip(fold, means, strict=True):
                values -= mean
    found = []
    for read, wanted in joined:
        count, transposed = read.shape[2], read.mT
        found.append(Moments(count, read @ transposed / count, wanted @ transposed / count))
    return found


def steps_of(weight: Tensor, scales: Tensor, folds: Sequence[Moments], *, pair_safe: bool) -> Tensor:
    """How many steps each weight is to be moved from where it is nearest: int8, in the shape of the weight.

    Args:
        weight: `[o, i, h, w]`.
        scales: Of its rows, `[o]` or `[1]`, float64; at these, the nearest integers are pair-safe.
        folds: Of what its convolution reads, on one or two sets of images.
        pair_safe: No two neighbours may exceed `PAIR_LIMIT` together.
    """
    moments = folds[0] if len(folds) == 1 else folds[0] + folds[1]
    groups, columns = moments.covariance.shape[:2]
    rows = weight.detach().double().reshape(groups, -1, columns)
    steps = scales.expand(len(weight)).reshape(groups, -1, 1)
    lower, fitted = _fitted(rows, moments, _best_damping(rows, folds))
    order = moments.covariance.diagonal(dim1=1, dim2=2).argsort(stable=True, dim=1, descending=True)
    room = _Room(weight, groups) if pair_safe else None
    moved = _rounded(fitted / steps, torch.cholesky_inverse(lower), order, room) - (rows / steps).round()
    return moved.clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT).to(torch.int8).reshape(weight.shape)


def _best_damping(weight: Tensor, folds: Sequence[Moments]) -> float:
    """That with which weights fitted on one fold give the least error on the other."""
    if len(folds) < 2:
        return _DAMPINGS[-1]
    errors = torch.zeros(len(_DAMPINGS), dtype=torch.float64)
    for seen, unseen in (folds, folds[::-1]):
        for i, damping in enumerate(_DAMPINGS):
            _, fitted = _fitted(weight, seen, damping)
            judged = fitted.to(unseen.wanted.dtype)
            error = (judged @ unseen.covariance - 2 * unseen.wanted) * judged
            errors[i] += error.sum(dtype=torch.float64)
    return _DAMPINGS[int(errors.argmin())]


def _fitted(weight: Tensor, moments: Moments, damping: float) -> tuple[Tensor, Tensor]:
    """The lower Cholesky factor of the damped covariance, and the weights that least squares gives."""
    covariance = moments.covariance.double()
    added = damping * _unit(covariance)
    lower = torch.linalg.cholesky(covariance + torch.diag_embed(added.expand(covariance.shape[:2])))
    wanted = moments.wanted.double() + added.unsqueeze(2) * weight
    return lower, torch.cholesky_solve(wanted.mT, lower).mT


def _unit(covariance: Tensor) -> Tensor:
    """What damping is a multiple of: the mean moment of each group, `[groups, 1]`."""
    return covariance.diagonal(dim1=1, dim2=2).mean(1, keepdim=True).clamp_min(1e-12)


def _rounded(weight: Tensor, inverse: Tensor, order: Tensor, room: _Room | None) -> Tensor:
    """Round `[groups, outputs, columns]` column by column.

    Args:
        weight: In steps.
        inverse: Of the covariance of the columns, positive definite.
        order: Of the columns, `[groups, columns]`: those with the largest moments first.
        room: What neighbours leave each other.
    """
    groups, outputs, columns = weight.shape
    across = order.unsqueeze(1).expand(groups, outputs, columns)
    square = order.unsqueeze(1).expand(groups, columns, columns)
    ordered = inverse.gather(2, square).gather(1, square.transpose(1, 2))
    # Row k of this factor says how the columns behind k make up for an error in column k.
    spread = torch.linalg.cholesky(ordered, upper=True)
    left = weight.gather(2, across)
    rounded = torch.empty_like(left)
    for start in range(0, columns, _BLOCK):
        end = min(start + _BLOCK, columns)
        block, errors = left[:, :, start:end], torch.empty_like(left[:, :, start:end])
        for k in range(start, end):
            given = block[:, :, k - start]
            values = given.round().clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)
            if room:
                values = room.taken(order[:, k], values)
            rounded[:, :, k] = values
            error = (given - values) / spread[:, k, k].unsqueeze(1)
            block[:, :, k - start :] -= error.unsqueeze(2) * spread[:, k, k:end].unsqueeze(1)
            errors[:, :, k - start] = error
        left[:, :, end:] -= errors @ spread[:, start:end, end:]
    return torch.empty_like(rounded).scatter_(2, across, rounded)


class _Room:
    """The values that are left for a weight by those of its neighbours that were rounded before it."""

    def __init__(self, weight: Tensor, groups: int) -> None:
        inputs, self._taps = weight.shape[1], weight[0, 0].numel()
        self._is_paired = inputs % 2 == 0
        slots = weight[0].numel() if self._is_paired else 1
        # Of odd channels any two weights may be neighbours: one slot holds the largest of each sign.
        self._highest = torch.zeros(groups, len(weight) // groups, slots, dtype=torch.float64)
        self._lowest = torch.zeros_like(self._highest)

    def taken(self, columns: Tensor, wanted: Tensor) -> Tensor:
        """As much of what a column of each group wants, `[groups, outputs]`, as there is room for."""
        slot = self._slot(columns, neighbour=True)
        # A neighbour of the other sign, or none, leaves room for more than a weight may be.
        high = PAIR_LIMIT - self._highest.gather(2, slot)
        low = -PAIR_LIMIT - self._lowest.gather(2, slot)
        values = wanted.unsqueeze(2).clamp(low, high)
        slot = self._slot(columns, neighbour=False)
        self._highest.scatter_(2, slot, torch.maximum(self._highest.gather(2, slot), values))
        self._lowest.scatter_(2, slot, torch.minimum(self._lowest.gather(2, slot), values))
        return values.squeeze(2)

    def _slot(self, columns: Tensor, *, neighbour: bool) -> Tensor:
        if not self._is_paired:
            columns = torch.zeros_like(columns)
        elif neighbour:  # columns are inputs, each with the taps of the kernel
            even = columns // self._taps % 2 == 0
            columns = torch.where(even, columns + self._taps, columns - self._taps)
        return columns.reshape(-1, 1, 1).expand(*self._highest.shape[:2], 1)
