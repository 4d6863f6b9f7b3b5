"""What a wrong input tensor comes from is told from the tensor."""

from __future__ import annotations

import numpy as np
import pytest

from edgedet.boxes import Floats
from edgedet.parity.input_tensor import InputComparison, input_cause
from edgedet.preprocess import preprocess
from edgedet.spec import InputSpec

SPEC = InputSpec(size_hw=(64, 64), resize="letterbox")


@pytest.fixture
def image() -> np.ndarray:
    rng = np.random.default_rng(3)
    return np.kron(rng.integers(0, 255, (9, 12, 3)), np.ones((10, 10, 1))).astype(np.uint8)


def tensor_of(image: np.ndarray, **changes) -> Floats:
    return preprocess(image, SPEC.model_copy(update=changes))[0]


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"mean": (0.0, 0.0, 0.0)}, "mean or std"),
        ({"std": (1.0, 2.0, 3.0)}, "mean or std"),
        ({"colour": "bgr"}, "BGR for RGB, or RGB for BGR"),
        ({"resize": "stretch"}, ""),
        ({"size_hw": (32, 64)}, "its shape is [1, 3, 32, 64], expected [1, 3, 64, 64]"),
    ],
)
def test_a_mistake_of_the_spec_is_recognised(image: np.ndarray, changes: dict, cause: str) -> None:
    assert input_cause(tensor_of(image), tensor_of(image, **changes)).endswith(cause)
    assert bool(input_cause(tensor_of(image), tensor_of(image, **changes))) == bool(cause)


@pytest.mark.parametrize(
    ("down", "right", "words"),
    [
        (1, 0, "lies 1 pixel further down:"),
        (-1, 0, "lies 1 pixel further up:"),
        (0, 2, "lies 2 pixels further to the right:"),
        (1, -1, "lies 1 pixel further down and 1 pixel further to the left:"),
    ],
)
def test_a_shift_is_told_with_its_direction_though_pixels_are_rounded(
    image: np.ndarray, down: int, right: int, words: str
) -> None:
    moved = np.roll(tensor_of(image), (down, right), axis=(2, 3))
    noise = np.random.default_rng(0).normal(0, 0.005, moved.shape).astype(np.float32)
    assert words in input_cause(tensor_of(image), moved + noise)


def test_pixels_that_are_rounded_otherwise_are_told_from_pixels_that_are_wrong() -> None:
    rng = np.random.default_rng(4)
    pixels = rng.integers(1, 255, (64, 64, 3), dtype=np.uint8)
    rounded = (pixels + rng.integers(-1, 2, pixels.shape)).astype(np.uint8)
    assert "linear_exact" in input_cause(tensor_of(pixels), tensor_of(rounded))
    rounded[5, 7] += 3
    assert input_cause(tensor_of(pixels), tensor_of(rounded)) == ""


def test_the_pair_that_differs_most_is_the_one_that_is_explained(image: np.ndarray) -> None:
    comparison = InputComparison()
    reference = tensor_of(image)
    comparison.add(reference, reference.copy())
    assert (comparison.max_abs, comparison.cause) == (0, "")
    comparison.add(reference, reference + np.float32(0.01) * np.sign(reference))
    comparison.add(reference, tensor_of(image, colour="bgr"))
    comparison.add(reference, reference)
    assert comparison.max_abs > 1
    assert "BGR" in comparison.cause
