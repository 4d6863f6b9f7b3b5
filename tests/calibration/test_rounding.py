"""Rounding by least squares, held against arithmetic that can be looked over."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx import Graph, Node

from edgedet.errors import BundleError
from edgedet.saturation import IntegerLayer, overflows
from edgedet_calibration.patches import POSITIONS, Patches
from edgedet_calibration.rounding import Moments, moments_of, steps_of
from edgedet_calibration.weight_scales import ScaleRule
from edgedet_calibration.weight_steps import moved, packed, unpacked

CONV = torch.ops.aten.conv2d.default


def node_of(*options: Any, target: Any = CONV) -> Node:
    """A convolution node with stride, padding, dilation and groups."""
    graph = Graph()
    read = graph.placeholder("x")
    return graph.call_function(target, (read, None, None, *options))


def folds_of(node: Node, weight: torch.Tensor, *pairs: Any, centred: bool = False) -> list[Moments]:
    """Of the true and the read input of each image, and of what is missing in its output."""
    patches, convolve = Patches(node, weight), node.target
    folds: tuple[list[Any], list[Any]] = ([], [])
    assert callable(convolve)
    for i, (true, read, *missing) in enumerate(pairs):
        wanted = convolve(true, weight, None, *node.args[3:]) + (missing[0] if missing else 0)
        folds[i % 2].append(patches.sampled(read, wanted, i))
    return moments_of(folds, centred=centred)


def scales_of(weight: torch.Tensor) -> torch.Tensor:
    return ScaleRule().scales(weight)


GEOMETRIES = [
    ((), 3, 4, 1, 1),
    (([1, 1], [0, 0]), 8, 4, 1, 1),
    (([2, 2], [1, 1]), 4, 6, 3, 1),
    (([2, 1], [2, 0], [2, 1]), 4, 6, 3, 1),
    (([1, 1], [1, 1], [1, 1], 6), 6, 6, 3, 6),
    (([2, 2], [2, 2], [1, 1], 3), 6, 9, 5, 3),
]


@pytest.mark.parametrize(("options", "inputs", "outputs", "kernel", "groups"), GEOMETRIES)
@pytest.mark.parametrize("centred", [False, True])
def test_a_layer_that_reads_what_was_changed_comes_nearer_to_its_float_output(
    options: tuple[Any, ...], inputs: int, outputs: int, kernel: int, groups: int, centred: bool
) -> None:
    generator = torch.Generator().manual_seed(kernel + groups)
    weight = torch.randn(outputs, inputs // groups, kernel, kernel, generator=generator)
    true = torch.randn(40, inputs, 9, 9, generator=generator) + 0.5
    gain = 1 + 0.1 * torch.randn(1, inputs, 1, 1, generator=generator)
    read = gain * true + 0.1 * torch.randn(true.shape, generator=generator) + 0.05
    node, scales = node_of(*options), scales_of(weight)
    pairs = [(true[i : i + 1], read[i : i + 1]) for i in range(30)]
    steps = steps_of(weight, scales, folds_of(node, weight, *pairs, centred=centred), pair_safe=False)

    def error(rounded: torch.Tensor) -> float:
        """On images that nothing was fitted to; a bias is free to take the means."""
        difference = CONV(true[30:], weight, None, *options) - CONV(read[30:], rounded, None, *options)
        if centred:
            difference = difference - difference.mean((0, 2, 3), keepdim=True)
        return float(difference.square().mean())

    assert error(moved(weight, scales, steps)) < 0.9 * error(moved(weight, scales, torch.zeros_like(steps)))


def test_moments_are_those_of_the_patches_that_the_convolution_reads() -> None:
    weight = torch.randn(6, 2, 3, 2)
    for target, options in (
        (CONV, ([2, 1], [1, 0], [1, 2], 2)),
        (torch.ops.aten.conv2d.padding, ([1, 1], "same", [1, 1], 2)),
        (torch.ops.aten.conv2d.padding, ([1, 1], "valid", [1, 1], 2)),
    ):
        read = torch.randn(1, 4, 7, 8)
        covariance = folds_of(node_of(*options, target=target), weight, (read, read))[0].covariance.double()
        rows = weight.reshape(2, 3, 12).double()
        found = torch.einsum("goc,gcd,god->go", rows, covariance, rows)
        expected = target(read, weight, None, *options).double().square().mean((0, 2, 3)).reshape(2, 3)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_few_roundings_of_a_small_layer_are_better_than_the_one_found() -> None:
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(4, 4, generator=generator)
    sources = [torch.randn(1, 4, 6, 6, generator=generator) for _ in range(8)]
    reads = [torch.einsum("ij,bjhw->bihw", mixing, source) for source in sources]
    weight = torch.randn(1, 4, 1, 1, generator=generator)
    scales = torch.tensor([0.5], dtype=torch.float64)  # coarse, so that rounding matters
    folds = folds_of(node_of(), weight, *((read, read) for read in reads))
    covariance = (folds[0] + folds[1]).covariance[0].double()
    steps = steps_of(weight, scales, folds, pair_safe=False)
    nearest = (weight.double() / scales).round().flatten()

    def error(integers: torch.Tensor) -> float:
        difference = weight.double().flatten() - integers * scales
        return float(difference @ covariance @ difference)

    moves = itertools.product((-1, 0, 1), repeat=4)
    errors = [error(nearest + torch.tensor(move, dtype=torch.float64)) for move in moves]
    assert error(nearest + steps.double().flatten()) <= sorted(errors)[4]  # of 81


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-6, 1.0, 1e4]), st.booleans())
def test_integers_stay_on_the_grid(seed: int, size: float, dead: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = size * torch.randn(5, 7, 1, 1, generator=generator)
    reads = [torch.randn(1, 7, 3, 3, generator=generator) for _ in range(2)]
    if dead:
        weight[2] = 0
        for read in reads:
            read[:, 3] = 0
    scales = scales_of(weight).clamp_min(2.0**-20)
    folds = folds_of(node_of(), weight, *((r + 0.1 * r.abs(), r) for r in reads))
    steps = steps_of(weight, scales, folds, pair_safe=False)
    rows = scales.reshape(-1, 1, 1, 1)
    nearest = (weight.double() / rows).round()
    integers = nearest + steps
    assert integers.abs().max() <= 127
    written = moved(weight, scales, steps)
    torch.testing.assert_close((written.double() / rows).round(), integers, rtol=0, atol=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(8, 1), (6, 9), (3, 9), (5, 1), (1, 4)]), st.booleans())
def test_no_two_neighbours_of_one_sign_exceed_what_16_bits_hold(
    seed: int, shape: tuple[int, int], correlated: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs, side = shape[0], int(shape[1] ** 0.5)
    weight = torch.randn(5, inputs, side, side, generator=generator).abs() ** 3
    weight *= torch.sign(torch.randn(weight.shape, generator=generator) + 1)
    reads = [torch.randn(1, inputs, 6, 6, generator=generator) for _ in range(4)]
    if correlated:  # what is fitted is far from the weights that gave the scales
        reads = [read + 3 * read[:, :1] for read in reads]
    scales = ScaleRule(pair_safe=True).scales(weight)
    folds = folds_of(node_of(), weight, *((read, 0.7 * read) for read in reads))
    rows = scales.reshape(-1, 1, 1, 1)
    nearest = (weight.double() / rows).round()
    for integers in (nearest, nearest + steps_of(weight, scales, folds, pair_safe=True)):
        layer = IntegerLayer("conv", integers.to(torch.int8).numpy())
        assert overflows([layer]) == ()
        assert products_fit(layer.weight)
    assert (scales >= ScaleRule().scales(weight)).all()
    assert (scales <= 2 * ScaleRule().scales(weight)).all()


def products_fit(weight: Any) -> bool:
    """Whether 255 times every two neighbours fits in 16 bits: counted out, pair by pair."""
    outputs, inputs = weight.shape[:2]
    taps = weight.reshape(outputs, inputs, -1).astype(int)
    if inputs % 2:
        flat = taps.reshape(outputs, -1)
        pairs = [(flat[:, a], flat[:, b]) for a, b in itertools.combinations(range(flat.shape[1]), 2)]
    else:
        pairs = [(taps[:, i], taps[:, i + 1]) for i in range(0, inputs, 2)]
    worst = [
        255 * max(0, sign * a) + 255 * max(0, sign * b)
        for x, y in pairs
        for sign in (1, -1)
        for a, b in zip(x.flat, y.flat, strict=True)
    ]
    return all(one <= 2**15 - 1 for one in worst)


@pytest.mark.parametrize("options", [([1, 1], [1, 1]), ([2, 2], [1, 1]), ([2, 1], [2, 0], [2, 1])])
def test_a_large_map_is_sampled_and_a_small_one_read_whole(options: tuple[Any, ...]) -> None:
    weight, node = torch.randn(2, 3, 3, 3), node_of(*options)
    for side in (16, 40, 160):
        image = torch.randn(1, 3, side, side)
        given = CONV(image, weight, None, *options)
        samples = [Patches(node, weight).sampled(image, given, number) for number in range(8)]
        for read, wanted in samples:
            assert read.shape[2] == wanted.shape[2]
            torch.testing.assert_close(weight.reshape(1, 2, -1) @ read, wanted, rtol=1e-4, atol=1e-4)
        positions = given.shape[2] * given.shape[3]
        if positions <= POSITIONS:
            assert {read.shape[2] for read, _ in samples} == {positions}
        else:
            assert max(read.shape[2] for read, _ in samples) <= 1.1 * POSITIONS
            assert not torch.equal(samples[0][1], samples[1][1]), "another grid for another image"


def test_what_a_layer_never_saw_keeps_its_weight() -> None:
    weight = torch.randn(3, 4, 1, 1)
    silence = torch.zeros(1, 4, 2, 2)
    for centred in (False, True):
        folds = folds_of(node_of(), weight, (silence, silence), (silence, silence), centred=centred)
        assert not steps_of(weight, scales_of(weight), folds, pair_safe=False).any()


@pytest.mark.parametrize("images", [1, 2, 3])
def test_a_layer_of_more_weights_than_positions_does_not_lose_on_other_images(images: int) -> None:
    generator = torch.Generator().manual_seed(images)
    weight = torch.randn(8, 200, 1, 1, generator=generator)
    true = torch.randn(30, 200, 3, 3, generator=generator)
    read = true + 0.2 * torch.randn(true.shape, generator=generator)
    pairs = [(true[i : i + 1], read[i : i + 1]) for i in range(images)]
    scales = scales_of(weight)
    steps = steps_of(weight, scales, folds_of(node_of(), weight, *pairs), pair_safe=False)
    wanted, found = CONV(true[3:], weight), CONV(read[3:], moved(weight, scales, steps))
    plain = CONV(read[3:], moved(weight, scales, torch.zeros_like(steps)))
    assert (wanted - found).square().mean() < 1.02 * (wanted - plain).square().mean()


def test_what_the_other_operand_of_a_sum_lost_is_made_up_for() -> None:
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(3, 6, 1, 1, generator=generator)
    scales = scales_of(weight)
    lost = 0.2 * torch.randn(3, 6, 1, 1, generator=generator)
    reads = [torch.randn(1, 6, 5, 5, generator=generator) for _ in range(12)]
    triples = [(read, read, CONV(read, lost)) for read in reads]
    steps = steps_of(weight, scales, folds_of(node_of(), weight, *triples), pair_safe=False)

    def error(integers: torch.Tensor) -> float:
        return sum(
            float(
                (CONV(read, weight) + missing - CONV(read, moved(weight, scales, integers))).square().mean()
            )
            for read, _, missing in triples
        )

    assert error(steps) < 0.2 * error(torch.zeros_like(steps))


@given(st.lists(st.integers(-127, 127), min_size=1, max_size=60))
def test_steps_come_back_from_text(values: list[int]) -> None:
    steps = torch.tensor(values, dtype=torch.int8).reshape(-1, 1)
    assert torch.equal(unpacked(packed(steps), steps.shape, "conv"), steps)


def test_a_text_that_unpacks_to_more_is_refused_without_unpacking_it() -> None:
    bomb = packed(torch.zeros(10**7, dtype=torch.int8))
    assert len(bomb) < 20_000
    with pytest.raises(BundleError, match="do not fit conv; got more than that"):
        unpacked(bomb, (4,), "conv")
