"""The ratio of two artifacts and its interval: what the books say, and how often it holds the truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgedet.bench.ratio import _signed_rank_distribution, paired_ratio, signed_rank, typical_interval


@pytest.mark.parametrize("n", [1, 4, 7])
def test_the_distribution_of_the_signed_rank_is_that_of_all_signs(n):
    counted = np.zeros(n * (n + 1) // 2 + 1)
    for signs in itertools.product((0, 1), repeat=n):
        counted[sum(rank for rank, sign in enumerate(signs, 1) if sign)] += 1
    assert _signed_rank_distribution(n) == pytest.approx(counted / 2**n)


@pytest.mark.parametrize(
    # Critical values of the signed-rank test, two-sided 0.05, as in every table of it: W <= 0, 2, 3, 8, 52.
    ("n", "critical"),
    [(6, 0), (7, 2), (8, 3), (10, 8), (20, 52)],
)
def test_the_interval_leaves_out_as_many_means_of_pairs_as_the_table_of_critical_values_says(n, critical):
    values = np.random.default_rng(n).normal(size=n)
    walsh = sorted((values[i] + values[j]) / 2 for i in range(n) for j in range(i, n))
    estimate, interval = signed_rank(values)
    assert interval == pytest.approx((walsh[critical], walsh[-1 - critical]))
    assert estimate == pytest.approx(np.median(walsh))


def test_five_values_are_too_few_for_an_interval():
    assert signed_rank(np.arange(5.0)) == (2.0, None)
    assert typical_interval([8.0] * 5) is None
    assert typical_interval([8.0] * 6) == (8, 8)


def test_a_drift_that_slows_down_steadily_leaves_the_ratio_exact():
    # A B B A: the one is measured at times 0, 3, 4, 7, … and the other at 1, 2, 5, 6, …
    drift = np.exp(0.01 * np.arange(48.0)).reshape(-1, 4)
    ratio = paired_ratio((20 * drift[:, [0, 3]]).ravel(), (10 * drift[:, [1, 2]]).ravel())
    assert (ratio.ratio, ratio.low, ratio.high) == (2, 2, 2)


def test_the_same_artifact_twice_holds_one_as_often_as_promised_even_where_disturbances_last():
    random = np.random.default_rng(0)
    held = {0.0: 0, 0.9: 0}
    runs = 400
    for lasting in held:
        for _ in range(runs):
            shocks = 0.1 * random.standard_t(3, 80)
            for index in range(1, 80):
                shocks[index] += lasting * shocks[index - 1]
            turns_ms = (8 * np.exp(shocks)).reshape(-1, 4)
            ratio = paired_ratio(turns_ms[:, [0, 3]].ravel(), turns_ms[:, [1, 2]].ravel())
            held[lasting] += ratio.holds_one
    # 95 % are promised; 91.5 % would be three standard deviations below.
    assert all(count / runs > 0.915 for count in held.values()), held


def test_processes_that_differ_make_the_interval_as_wide_as_they_differ():
    random = np.random.default_rng(1)
    held, blind, runs = 0, 0, 300
    for _ in range(runs):
        # Each process is faster or slower for as long as it lives: five blocks of two turns.
        own = 0.01 * np.repeat(random.normal(size=(2, 8)), 10, axis=1)
        one_ms, other_ms = 8 * np.exp(own + 0.002 * random.normal(size=(2, 80)))
        held += paired_ratio(one_ms, other_ms, 8).holds_one
        blind += paired_ratio(one_ms, other_ms).holds_one
    assert held / runs > 0.915
    assert blind < held


def test_more_turns_make_the_interval_narrower():
    random = np.random.default_rng(1)

    def width(turns: int) -> float:
        ratio = paired_ratio(*8 * np.exp(0.1 * random.normal(size=(2, turns))))
        return ratio.high - ratio.low

    assert width(600) < 0.5 * width(40)


def test_many_blocks_count_as_thirty_values_so_that_neighbours_are_not_taken_for_independent():
    assert paired_ratio([8.0] * 600, [4.0] * 600).batches == 30
    assert paired_ratio([8.0] * 20, [4.0] * 20).batches == 10
