"""Weights rounded so that the output of a layer, rather than each weight, is closest to that in float.

A layer of an integer model reads what the layers before it have already changed. Its weights are first fitted
to that: by least squares they give the float output from the integer input (the asymmetric reconstruction of
Nagel et al., AdaRound, ICML 2020, section 4). Then they are rounded one column after another, and the error
of each is spread over those still to be rounded (Frantar et al., GPTQ, ICLR 2023). Both need only second
moments of the inputs, and no learning rate. Their cost grows with the cube of what an output reads.

Few images show a layer less than it has weights. Both steps are therefore damped: the more, the less what
half of the images taught helps on the other half.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node

# Shares of the mean moment that are added to all of them; the last leaves weights all but alone.
_DAMPINGS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0, 1000.0)
# Positions that are looked at in double precision at once, times columns.
_CHUNK = 2**21
_STEPS_LIMIT = 127
# A layer whose outputs read more than this would take minutes and gigabytes.
LARGEST_FAN_IN = 2304

_Pair = tuple[int, int]


class Moments:
    """Second moments of what a convolution reads, about their means, over images and positions.

    Args:
        convolution: The node; its arguments are those of `aten.conv2d`.
        weight: Its weight, `[o, i, h, w]`.
        centred: The bias can take up any mean, so that means do not count.
    """

    def __init__(self, convolution: Node, weight: Tensor, *, centred: bool) -> None:
        stride, padding, dilation, groups = _geometry(convolution)
        self._kernel = tuple(weight.shape[2:])
        self._stride, self._padding, self._dilation = stride, padding, dilation
        self._centred = centred
        outputs, columns = len(weight) // groups, weight[0].numel()
        self._count = 0
        self._read_sum = torch.zeros(groups, columns, dtype=torch.float64)
        self._true_sum = torch.zeros_like(self._read_sum)
        self._missing_sum = torch.zeros(groups, outputs, dtype=torch.float64)
        self._read_read = torch.zeros(groups, columns, columns, dtype=torch.float64)
        self._true_read = torch.zeros_like(self._read_read)
        self._missing_read = torch.zeros(groups, outputs, columns, dtype=torch.float64)

    def add(self, true: Tensor, read: Tensor, missing: Tensor | None = None) -> None:
        """Count one image.

        Args:
            true: The input in the float graph, `[1, c, h, w]`.
            read: The input in the integer graph.
            missing: What is to be added to the output beyond the float one, `[1, o, h, w]`.
        """
        groups, outputs, columns = self._missing_read.shape
        trues, reads = (self._patches(value).reshape(groups, columns, -1) for value in (true, read))
        positions = reads.shape[2]
        self._count += positions
        wanted = None if missing is None else missing.reshape(groups, outputs, positions)
        step = max(_CHUNK // (groups * columns), 1)
        for start in range(0, positions, step):
            part = slice(start, start + step)
            x, y = trues[:, :, part].double(), reads[:, :, part].double()
            transposed = y.transpose(1, 2)
            self._true_sum += x.sum(2)
            self._read_sum += y.sum(2)
            self._read_read += y @ transposed
            self._true_read += x @ transposed
            if wanted is not None:
                z = wanted[:, :, part].double()
                self._missing_sum += z.sum(2)
                self._missing_read += z @ transposed

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets of images."""
        both = copy.copy(self)
        both._count = self._count + other._count
        for name in ("_read_sum", "_true_sum", "_missing_sum", "_read_read", "_true_read", "_missing_read"):
            setattr(both, name, getattr(self, name) + getattr(other, name))
        return both

    @property
    def is_empty(self) -> bool:
        """Whether no image was counted."""
        return self._count == 0

    def covariance(self) -> Tensor:
        """Of the columns that the integer graph reads: `[groups, columns, columns]`, float64."""
        return self._about_means(self._read_read, self._read_sum)

    def wanted(self, weight: Tensor) -> Tensor:
        """Of the wanted output with those columns: `[groups, outputs, columns]`.

        Args:
            weight: The float one, `[groups, outputs, columns]`, float64.
        """
        wanted = weight @ self._about_means(self._true_read, self._true_sum)
        return wanted + self._about_means(self._missing_read, self._missing_sum)

    def _about_means(self, products: Tensor, sums: Tensor) -> Tensor:
        if self._centred:
            products = products - sums.unsqueeze(2) * self._read_sum.unsqueeze(1) / self._count
        return products / self._count

    def _patches(self, value: Tensor) -> Tensor:
        """What each position of the output reads."""
        kernel = self._kernel
        total = [d * (k - 1) for d, k in zip(self._dilation, kernel, strict=True)]
        if self._padding == "same":
            rows, columns = total
            value = F.pad(value, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        elif self._padding != "valid":
            rows, columns = (int(size) for size in self._padding)
            value = F.pad(value, (columns, columns, rows, rows))
        if kernel == (1, 1):
            return value[:, :, :: self._stride[0], :: self._stride[1]]
        return F.unfold(value, kernel, dilation=self._dilation, stride=self._stride)


def steps_of(weight: Tensor, scales: Tensor, folds: tuple[Moments, Moments]) -> Tensor:
    """How many steps each weight is to be moved from where it is nearest: int8, in the shape of the weight.

    The largest weight of each scale stays where it is, and so does the scale.

    Args:
        weight: `[o, i, h, w]`.
        scales: Of its rows, `[o]` or `[1]`, float64.
        folds: Of what its convolution reads, on two sets of images.
    """
    moments = folds[0] + folds[1]
    covariance = moments.covariance()
    groups, columns = covariance.shape[:2]
    rows = weight.detach().double().reshape(groups, -1, columns)
    steps = scales.expand(len(weight)).reshape(groups, -1, 1)
    damping = _best_damping(rows, folds) * _unit(covariance)
    damped = covariance + torch.diag_embed(damping.expand(groups, columns))
    inverse = torch.linalg.inv(damped)
    wanted = moments.wanted(rows) + damping.unsqueeze(2) * rows
    fitted: Tensor = torch.linalg.solve(damped, wanted, left=False)
    nearest = (rows / steps).round()
    largest, at = nearest.abs().max(2, keepdim=True)
    held = torch.zeros_like(rows, dtype=torch.bool).scatter_(2, at, largest >= _STEPS_LIMIT)
    order = damped.diagonal(dim1=1, dim2=2).argsort(stable=True, dim=1, descending=True)
    moved = _rounded(_with_held(fitted / steps, nearest, held, inverse), inverse, held, order) - nearest
    return moved.clamp(-_STEPS_LIMIT, _STEPS_LIMIT).to(torch.int8).reshape(weight.shape)


def _best_damping(weight: Tensor, folds: tuple[Moments, Moments]) -> float:
    """That with which weights fitted on one fold give the least error on the other."""
    if any(fold.is_empty for fold in folds):
        return _DAMPINGS[-1]
    errors = torch.zeros(len(_DAMPINGS), dtype=torch.float64)
    for seen, unseen in (folds, folds[::-1]):
        covariance, wanted = seen.covariance(), seen.wanted(weight)
        judge, judge_wanted = unseen.covariance(), unseen.wanted(weight)
        unit = _unit(covariance)
        values, vectors = torch.linalg.eigh(covariance)
        for i, damping in enumerate(_DAMPINGS):
            inverse = 1 / (values.clamp_min(0) + damping * unit).unsqueeze(1)
            fitted = ((wanted + damping * unit.unsqueeze(2) * weight) @ vectors * inverse) @ vectors.mT
            errors[i] += ((fitted @ judge - 2 * judge_wanted) * fitted).sum()
    return _DAMPINGS[int(errors.argmin())]


def _unit(covariance: Tensor) -> Tensor:
    """What damping is a multiple of: the mean moment of each group, `[groups, 1]`."""
    return covariance.diagonal(dim1=1, dim2=2).mean(1, keepdim=True).clamp_min(1e-12)


def _with_held(fitted: Tensor, values: Tensor, held: Tensor, inverse: Tensor) -> Tensor:
    """The best weights among those with one column of a row, or none, at a given value."""
    excess = torch.where(held, values - fitted, 0.0) / inverse.diagonal(dim1=1, dim2=2).unsqueeze(1)
    return torch.where(held, values, fitted + excess @ inverse)


def _rounded(weight: Tensor, inverse: Tensor, held: Tensor, order: Tensor) -> Tensor:
    """Round `[groups, outputs, columns]` column by column.

    Args:
        weight: In steps.
        inverse: Of the covariance of the columns, positive definite.
        held: Which weights are whole numbers that stay as they are.
        order: Of the columns, `[groups, columns]`: those with the largest moments first.
    """
    groups, outputs, columns = weight.shape
    across = order.unsqueeze(1).expand(groups, outputs, columns)
    square = order.unsqueeze(1).expand(groups, columns, columns)
    ordered = inverse.gather(2, square).gather(1, square.transpose(1, 2))
    # Row k of this factor says how the columns behind k make up for an error in column k.
    spread = torch.linalg.cholesky(ordered, upper=True)
    left, kept = weight.gather(2, across), held.gather(2, across)
    fixed = weight.gather(2, across)
    rounded = torch.empty_like(left)
    for k in range(columns):
        nearest = left[:, :, k].round().clamp(-_STEPS_LIMIT, _STEPS_LIMIT)
        rounded[:, :, k] = torch.where(kept[:, :, k], fixed[:, :, k], nearest)
        error = (left[:, :, k] - rounded[:, :, k]) / spread[:, k, k].unsqueeze(1)
        left[:, :, k:] -= error.unsqueeze(2) * spread[:, k, k:].unsqueeze(1)
    return torch.empty_like(rounded).scatter_(2, across, rounded)


def _geometry(convolution: Node) -> tuple[_Pair, _Pair | str, _Pair, int]:
    """Stride, padding, dilation and groups of a convolution."""
    given: tuple[Any, ...] = (*convolution.args[3:], None, None, None, None)
    stride, padding, dilation, groups = given[:4]
    return (
        _pair(stride, 1),
        padding if isinstance(padding, str) else _pair(padding, 0),
        _pair(dilation, 1),
        groups or 1,
    )


def _pair(value: Any, default: int) -> _Pair:
    both = [default] if value is None else list(value)
    return int(both[0]), int(both[-1])
