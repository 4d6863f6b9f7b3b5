"""How many times as fast one artifact is as another, from turns that both took, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgedet.spec import Value

Logs = NDArray[np.float64]

CONFIDENCE = 0.95

# Blocks that follow each other see the same disturbance, and an interval of many dependent values is too
# narrow. Between 10 and 30 batches of consecutive ones lose little and are nearly independent (Schmeiser,
# Batch Size Effects in the Analysis of Simulation Output, Operations Research 30(3), 1982).
_MOST_BATCHES = 30


class Ratio(Value):
    """Time of one artifact over the time of another.

    Attributes:
        ratio: The Hodges-Lehmann estimate.
        low: Lower end of its interval with 95 % confidence, `high` the upper one; None with too few turns.
        batches: Independent values that both rest on.
    """

    ratio: float
    low: float | None
    high: float | None
    batches: int

    @property
    def holds_one(self) -> bool:
        """Whether the interval does not tell the two apart."""
        return self.low is None or self.high is None or self.low <= 1 <= self.high


def paired_ratio(one_ms: Sequence[float], other_ms: Sequence[float], processes: int = 1) -> Ratio:
    """Time of one over that of the other, from turns in ABBA order.

    A block of four turns, ABBA, gives one value: the mean of two logarithms of ratios, in which a clock or a
    load that changes at a steady rate cancels, and which is as often too large as too small by the rest. That
    symmetry is what the Wilcoxon signed-rank interval asks for. Where there were several processes, what
    varies most is which they were, and each pair of them is one value (Kalibera and Jones, Rigorous
    Benchmarking in Reasonable Time, ISMM 2013, section 5).

    Args:
        one_ms: Typical time of a frame in each turn of the one; an even number of turns, two a block.
        other_ms: The same of the other, in the same order.
        processes: How many of each side took them, one after another, as `numpy.array_split` shares blocks.
    """
    logs = np.log(np.asarray(one_ms, np.float64)) - np.log(np.asarray(other_ms, np.float64))
    blocks = logs[: len(logs) // 2 * 2].reshape(-1, 2).mean(axis=1)
    batches = np.array([np.median(part) for part in _batches(blocks, processes)])
    estimate, interval = signed_rank(batches)
    low, high = (None, None) if interval is None else map(_rounded, interval)
    return Ratio(ratio=_rounded(estimate), low=low, high=high, batches=len(batches))


def typical_interval(turns_ms: Sequence[float], processes: int = 1) -> tuple[float, float] | None:
    """Between which values the typical time of a frame lies with 95 % confidence.

    Args:
        turns_ms: Typical time of a frame in each turn; with more than one process, two turns a block.
        processes: As `paired_ratio`.
    """
    logs = np.log(np.asarray(turns_ms, np.float64))
    if processes > 1:
        logs = logs[: len(logs) // 2 * 2].reshape(-1, 2).mean(axis=1)
    _, interval = signed_rank(np.array([np.median(part) for part in _batches(logs, processes)]))
    return None if interval is None else (_rounded(interval[0]), _rounded(interval[1]))


def signed_rank(values: Logs, confidence: float = CONFIDENCE) -> tuple[float, tuple[float, float] | None]:
    """The Hodges-Lehmann estimate of a centre of symmetry, and its Wilcoxon signed-rank interval.

    The estimate is the median of the means of all pairs (Walsh averages). The k-th smallest and the k-th
    largest of them enclose the centre with probability 1 - 2 P(W < k), W the signed-rank statistic, whose
    distribution is computed exactly (Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd
    edition, sections 3.2 and 3.3).

    Args:
        values: Independent values, each distributed symmetrically about the same centre.
        confidence: Least probability, 0..1.

    Returns:
        The estimate and the narrowest such pair; None with too few values for that confidence, six for 0.95.
    """
    n = len(values)
    rows, columns = np.triu_indices(n)
    walsh = np.sort((values[rows] + values[columns]) / 2)
    below = np.cumsum(_signed_rank_distribution(n))  # below[k] is P(W <= k)
    k = int(np.searchsorted(below, (1 - confidence) / 2, side="right"))
    interval = (float(walsh[k - 1]), float(walsh[-k])) if k > 0 else None
    return float(np.median(walsh)), interval


def _signed_rank_distribution(n: int) -> Logs:
    """P(W = w): each rank from 1 to n is part of the sum with probability 1/2."""
    chances = np.zeros(n * (n + 1) // 2 + 1)
    chances[0] = 1.0
    for rank in range(1, n + 1):
        moved = np.zeros_like(chances)
        moved[rank:] = chances[:-rank]
        chances = (chances + moved) / 2
    return chances


def _batches(blocks: Logs, processes: int) -> list[Logs]:
    """Consecutive blocks together: those of a process, or as many batches as there may be."""
    return list(np.array_split(blocks, processes if processes > 1 else min(len(blocks), _MOST_BATCHES)))


def _rounded(logarithm: float) -> float:
    return round(math.exp(logarithm), 4)
