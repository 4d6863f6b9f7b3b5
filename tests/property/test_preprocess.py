"""The way of an image into the tensor, and of boxes there and back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedet.errors import DataError, TensorError
from edgedet.preprocess import Geometry, preprocess
from edgedet.spec import InputSpec

sides = st.integers(1, 2000)
resizes = st.sampled_from(["stretch", "letterbox"])


def image_of(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@st.composite
def specs(draw: st.DrawFn) -> InputSpec:
    side = st.integers(1, 512)
    return InputSpec(size_hw=(draw(side), draw(side)), resize=draw(resizes))


@given(specs(), sides, sides, st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_boxes_return_to_within_a_thousandth_of_a_pixel(spec, height, width, fractions) -> None:
    x1, x2 = sorted(fractions[:2])
    y1, y2 = sorted(fractions[2:])
    box = np.array([[x1 * width, y1 * height, x2 * width, y2 * height]], np.float32)
    geometry = Geometry.of((height, width), spec)
    there_and_back = geometry.to_image(geometry.to_tensor(box))
    # A float32 of the tensor has a step of 2^-24 of its size; enlarged again, that is all that may be lost.
    enlarged = max(height / geometry.content_hw[0], width / geometry.content_hw[1], 1)
    np.testing.assert_allclose(there_and_back, box, atol=max(1e-3, enlarged * max(spec.size_hw) * 2**-23))


@given(specs(), sides, sides)
def test_the_whole_image_is_the_content_of_the_tensor(spec: InputSpec, height: int, width: int) -> None:
    geometry = Geometry.of((height, width), spec)
    content = geometry.to_tensor(np.array([[0, 0, width, height]], np.float32))[0]
    top, left = geometry.offset_yx
    bottom, right = top + geometry.content_hw[0], left + geometry.content_hw[1]
    np.testing.assert_allclose(content, [left, top, right, bottom], atol=1e-3)
    assert bottom <= spec.size_hw[0]
    assert right <= spec.size_hw[1]


@given(specs(), sides, sides)
def test_a_letterbox_touches_two_sides_and_is_centred(spec: InputSpec, height: int, width: int) -> None:
    geometry = Geometry.of((height, width), spec.model_copy(update={"resize": "letterbox"}))
    free = np.array(spec.size_hw) - geometry.content_hw
    assert free.min() == 0
    assert tuple(free // 2) == geometry.offset_yx


@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_an_image_of_the_tensors_size_is_only_normalised(height: int, width: int, rgb: bool) -> None:
    spec = InputSpec(size_hw=(height, width), colour="rgb" if rgb else "bgr")
    image = image_of(height, width)
    tensor, _ = preprocess(image, spec)
    pixels = image[..., ::-1] if rgb else image
    expected = (pixels.astype(np.float64) - spec.mean) / spec.std
    np.testing.assert_allclose(tensor[0], expected.transpose(2, 0, 1), atol=1e-6, rtol=1e-6)


METHODS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "linear_exact": cv2.INTER_LINEAR_EXACT,
    "area": cv2.INTER_AREA,
}


@settings(max_examples=40)
@given(resizes, st.integers(1, 90), st.integers(1, 90), st.sampled_from(sorted(METHODS)))
def test_the_tensor_is_the_resized_padded_normalised_image(resize, height, width, interpolation) -> None:
    spec = InputSpec(size_hw=(48, 64), resize=resize, interpolation=interpolation, pad_value=7)
    image = image_of(height, width)
    tensor, geometry = preprocess(image, spec)
    content = cv2.resize(image, geometry.content_hw[::-1], interpolation=METHODS[interpolation])
    canvas = np.full((48, 64, 3), 7, np.float64)
    top, left = geometry.offset_yx
    canvas[top : top + content.shape[0], left : left + content.shape[1]] = content
    expected = ((canvas[..., ::-1] - spec.mean) / spec.std).transpose(2, 0, 1)
    np.testing.assert_allclose(tensor[0], expected, atol=1e-6, rtol=1e-6)


def bilinear(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Sampling at pixel centres in float64, edges repeated."""
    rows = (np.arange(size_hw[0]) + 0.5) * image.shape[0] / size_hw[0] - 0.5
    columns = (np.arange(size_hw[1]) + 0.5) * image.shape[1] / size_hw[1] - 0.5
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = (rows - top)[:, None, None], (columns - left)[None, :, None]

    def at(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        y, x = y.clip(0, image.shape[0] - 1), x.clip(0, image.shape[1] - 1)
        return image[y[:, None], x[None]].astype(np.float64)

    upper = at(top, left) * (1 - right) + at(top, left + 1) * right
    lower = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
    return upper * (1 - down) + lower * down


@settings(max_examples=25)
@given(st.integers(1, 120), st.integers(1, 120), st.sampled_from(["linear", "linear_exact"]))
def test_linear_resizing_is_half_pixel_bilinear_to_a_step_of_uint8(
    height: int, width: int, interpolation: str
) -> None:
    spec = InputSpec(
        size_hw=(40, 56),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        colour="bgr",
        interpolation=interpolation,
    )
    image = image_of(height, width)
    tensor, _ = preprocess(image, spec)
    expected = bilinear(image, spec.size_hw).transpose(2, 0, 1)
    # The exact one has weights of 8 bits: half of 1/256 off for each axis, and rounding.
    assert np.abs(tensor[0] - expected).max() <= (1.0 if interpolation == "linear" else 1.5)


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_a_box_covers_the_same_pixels_in_the_tensor(resize: str) -> None:
    image = np.zeros((90, 160, 3), np.uint8)
    image[30:60, 40:120] = 255
    spec = InputSpec(size_hw=(128, 128), resize=resize, mean=(0.0, 0.0, 0.0), pad_value=0)
    tensor, geometry = preprocess(image, spec)
    lit = tensor[0, 0] > 255 / spec.std[0] / 2
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    found = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float32)
    expected = geometry.to_tensor(np.array([[40, 30, 120, 60]], np.float32))
    np.testing.assert_allclose(found, expected, atol=0.51)


def test_a_buffer_is_written_and_returned() -> None:
    spec = InputSpec(size_hw=(32, 32))
    buffer = np.full((1, 3, 32, 32), np.nan, np.float32)
    tensor, _ = preprocess(image_of(20, 30), spec, buffer)
    assert tensor is buffer
    np.testing.assert_array_equal(buffer, preprocess(image_of(20, 30), spec)[0])


@pytest.mark.parametrize(
    "buffer",
    [np.empty((1, 3, 32, 31), np.float32), np.empty((3, 32, 32), np.float32), np.empty((1, 3, 32, 32))],
)
def test_a_buffer_of_another_shape_or_type_is_refused(buffer: np.ndarray) -> None:
    with pytest.raises(TensorError, match=r"expected float32 \[1, 3, 32, 32\]"):
        preprocess(image_of(20, 30), InputSpec(size_hw=(32, 32)), buffer)


@pytest.mark.parametrize("size_hw", [(1, 1), (20, 20_000), (20_000, 20), (1, 3000)])
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_images_of_extreme_shape_give_finite_tensors(size_hw: tuple[int, int], resize: str) -> None:
    tensor, geometry = preprocess(image_of(*size_hw), InputSpec(size_hw=(64, 64), resize=resize))
    assert np.isfinite(tensor).all()
    assert min(geometry.content_hw) >= 1


def test_views_with_any_strides_are_read_as_they_look() -> None:
    spec, image = InputSpec(size_hw=(24, 24)), image_of(60, 80)
    for view in (image[::-1], image[:, ::-1], image[..., ::-1], image[::2, ::3], image.transpose(1, 0, 2)):
        np.testing.assert_array_equal(preprocess(view, spec)[0], preprocess(view.copy(), spec)[0])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_uint8_colour_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"expected uint8 \[height, width, 3\]"):
        preprocess(image, InputSpec(size_hw=(32, 32)))
