"""How an image of the built-in data set is drawn: background, clutter, objects, light and camera.

Nothing but the outline tells the class: size, colour, texture, rotation and place are drawn independently of
it. All randomness comes from one generator in a fixed order, so that a seed is an image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgedet.boxes import Floats, Ints
from edgedet.data.shapes import OUTLINES
from edgedet.preprocess import Image

SIZES_HW = ((240, 320), (320, 320), (360, 480), (384, 512), (480, 360), (480, 640))

_MOST_OBJECTS = 10
_SMALLEST, _LARGEST = 12, 200
# A shape of which more than three quarters are covered or outside is no longer asked for.
_LEAST_VISIBLE = 0.25
# Coordinates have four binary digits after the point when polygons are filled.
_SHIFT = 4

Rng = np.random.Generator
Mask = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """An image with the boxes `[n, 4]` and classes `[n]` of its visible shapes."""

    image_bgr: Image
    boxes_xyxy: Floats
    class_ids: Ints


def draw_scene(rng: Rng) -> Scene:
    """Draw one image."""
    height, width = SIZES_HW[rng.integers(len(SIZES_HW))]
    image = _background(rng, (height, width))
    for _ in range(rng.integers(3, 9)):
        _CLUTTER[rng.integers(len(_CLUTTER))](rng, image)
    owner = np.full((height, width), -1, np.int16)
    boxes: list[tuple[int, int, int, int]] = []
    class_ids: list[int] = []
    areas: list[int] = []
    for _ in range(rng.integers(1, _MOST_OBJECTS + 1)):
        class_id = int(rng.integers(len(OUTLINES)))
        mask, area, left, top = _place(rng, list(OUTLINES)[class_id], owner)
        if not (mask > 127).any():
            continue
        bottom, right = top + mask.shape[0], left + mask.shape[1]
        _paint(rng, image, mask, left, top)
        owner[top:bottom, left:right][mask > 127] = len(boxes)
        boxes.append(_tight_box(mask, left, top))
        class_ids.append(class_id)
        areas.append(area)
    visible = np.bincount(owner[owner >= 0], minlength=len(boxes)) / np.maximum(areas, 1)
    keep = visible >= _LEAST_VISIBLE
    return Scene(
        _camera(rng, image),
        np.array(boxes, np.float32).reshape(-1, 4)[keep],
        np.array(class_ids, np.int64)[keep],
    )


def _tight_box(mask: Mask, left: int, top: int) -> tuple[int, int, int, int]:
    """The half-open box of the pixels that are covered by half or more."""
    rows, columns = np.flatnonzero(mask.max(axis=1) > 127), np.flatnonzero(mask.max(axis=0) > 127)
    return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1


def _colour(rng: Rng) -> NDArray[np.float64]:
    """A colour, blue, green, red: any hue, from dull to saturated and from dark to light."""
    hsv = np.array([[[rng.integers(180), rng.integers(20, 256), rng.integers(40, 256)]]], np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0], np.float64)


def _clouds(rng: Rng, size_hw: tuple[int, int], cells: int) -> Image:
    """Smooth noise, `[h, w]`: a random grid of `cells` a side, enlarged."""
    grid = rng.integers(0, 256, (cells, cells), np.uint8)
    return np.asarray(cv2.resize(grid, size_hw[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


def _background(rng: Rng, size_hw: tuple[int, int]) -> Image:
    """Two colours mixed by clouds of three sizes."""
    mix = cv2.addWeighted(
        _clouds(rng, size_hw, 3), 0.5, _clouds(rng, size_hw, int(rng.integers(5, 12))), 0.3, 0
    )
    mix = cv2.addWeighted(mix, 1.0, _clouds(rng, size_hw, int(rng.integers(24, 90))), 0.2 * rng.random(), 0)
    first, second = _colour(rng), _colour(rng)
    second = first + (second - first) * rng.uniform(0.25, 0.9)
    table = np.linspace(first, second, 256).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(cv2.merge([mix] * 3), table[:, None, :].reshape(1, 256, 3)), np.uint8)


def _clutter_line(rng: Rng, image: Image) -> None:
    height, width = image.shape[:2]
    ends = rng.integers(0, (width, height), (2, 2))
    thickness = int(rng.integers(1, 5))
    cv2.line(image, ends[0].tolist(), ends[1].tolist(), _colour(rng).tolist(), thickness, cv2.LINE_AA)


def _clutter_blob(rng: Rng, image: Image) -> None:
    """An irregular outline that is no class, faintly over what is there."""
    height, width = image.shape[:2]
    corners = int(rng.integers(5, 9))
    angles = (np.arange(corners) + rng.uniform(0, 0.8, corners)) * (2 * np.pi / corners)
    radii = rng.uniform(0.4, 1.0, corners) * rng.uniform(10, 90)
    points = (
        rng.uniform((0, 0), (width, height)) + np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]
    )
    layer = image.copy()
    cv2.fillPoly(layer, [_fixed_point(points)], _colour(rng).tolist(), cv2.LINE_AA, _SHIFT)
    strength = rng.uniform(0.2, 0.8)
    cv2.addWeighted(layer, strength, image, 1 - strength, 0, dst=image)


def _clutter_letter(rng: Rng, image: Image) -> None:
    height, width = image.shape[:2]
    at = rng.integers((0, 10), (width, height)).tolist()
    letter = chr(int(rng.integers(ord("A"), ord("Z") + 1)))
    size = rng.uniform(0.5, 2.5)
    cv2.putText(image, letter, at, cv2.FONT_HERSHEY_SIMPLEX, size, _colour(rng).tolist(), 2, cv2.LINE_AA)


_CLUTTER = (_clutter_line, _clutter_blob, _clutter_letter)


def _place(rng: Rng, name: str, owner: NDArray[np.int16]) -> tuple[Mask, int, int, int]:
    """A shape somewhere: its mask inside the image, its whole area in pixels, and the mask's left and top.

    Of three places the one that covers least of earlier shapes is taken, so that most shapes are whole and
    some are partly hidden.
    """
    height, width = owner.shape
    mask = _shape(rng, name, min(_LARGEST, 0.6 * min(height, width)))
    extent = np.array(mask.shape[::-1])
    overhang = extent * 0.3
    places = (
        rng.uniform(-overhang, np.array([width, height]) - extent + overhang, (3, 2)).astype(int).tolist()
    )

    def covered(place: list[int]) -> int:
        left, top = max(place[0], 0), max(place[1], 0)
        taken = owner[top : place[1] + extent[1], left : place[0] + extent[0]] >= 0
        return int(np.count_nonzero(taken))

    left, top = min(places, key=covered)
    inside = mask[max(-top, 0) : height - top, max(-left, 0) : width - left]
    return inside, int(np.count_nonzero(mask > 127)), max(left, 0), max(top, 0)


def _shape(rng: Rng, name: str, largest: float) -> Mask:
    """The coverage 0..255 of a shape of random size, turn and squeeze."""
    # Even in the logarithm of the size but for the power, which makes the smallest rarer.
    size = _SMALLEST * (largest / _SMALLEST) ** rng.random() ** 0.7
    turn, squeeze = rng.uniform(0, 2 * np.pi), rng.uniform(0.78, 1.28)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    outline = [contour * (squeeze, 1 / squeeze) @ rotation.T for contour in OUTLINES[name](rng)]
    corner = np.min([contour.min(axis=0) for contour in outline], axis=0)
    extent = np.max([contour.max(axis=0) for contour in outline], axis=0) - corner
    scale = size / extent.max()
    columns, rows = np.ceil(extent * scale).astype(int) + 4
    mask = np.zeros((rows, columns), np.uint8)
    contours = [_fixed_point((contour - corner) * scale + 1.5) for contour in outline]
    cv2.fillPoly(mask, contours, (255,), cv2.LINE_AA, _SHIFT)
    return mask


def _fixed_point(points: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.rint(points * (1 << _SHIFT)).astype(np.int32)


def _paint(rng: Rng, image: Image, mask: Mask, left: int, top: int) -> None:
    """Fill a mask with a texture, over a soft shadow for every second shape."""
    height, width = mask.shape
    if rng.random() < 0.5:
        _shadow(rng, image, mask, left, top)
    patch = image[top : top + height, left : left + width]
    behind = patch.reshape(-1, 3).mean(axis=0)
    # A shape that cannot be told from what is behind it teaches nothing. All colours are drawn whichever is
    # taken, since pixels differ a little between versions of OpenCV and must not change what is drawn next.
    second, *shades = (_colour(rng) for _ in range(5))
    first = next((shade for shade in shades if np.abs(shade - behind).sum() > 90), shades[-1])
    second = first + (second - first) * rng.uniform(0.2, 0.8)
    blend = _TEXTURES[rng.integers(len(_TEXTURES))](rng, (height, width))
    table = np.linspace(first, second, 256).clip(0, 255).astype(np.uint8)
    texture = cv2.LUT(cv2.merge([blend] * 3), table.reshape(1, 256, 3))
    weight = cv2.merge([mask] * 3)
    over = cv2.multiply(texture, weight, scale=1 / 255)
    patch[:] = cv2.add(over, cv2.multiply(patch, 255 - weight, scale=1 / 255))


def _shadow(rng: Rng, image: Image, mask: Mask, left: int, top: int) -> None:
    """Darken what lies a little to the side of the mask."""
    shift = rng.integers(-6, 7, 2)
    x, y = max(left + int(shift[0]), 0), max(top + int(shift[1]), 0)
    patch = image[y : y + mask.shape[0], x : x + mask.shape[1]]
    soft = cv2.GaussianBlur(mask, (0, 0), 2.5)[: patch.shape[0], : patch.shape[1]]
    keep = 255 - cv2.multiply(soft, soft, scale=rng.uniform(0.2, 0.6) / 255)
    patch[:] = cv2.multiply(patch, cv2.merge([keep] * 3), scale=1 / 255)


def _flat(rng: Rng, size_hw: tuple[int, int]) -> Mask:  # noqa: ARG001
    return np.zeros(size_hw, np.uint8)


def _gradient(rng: Rng, size_hw: tuple[int, int]) -> Mask:
    corners = rng.integers(0, 256, (2, 2), np.uint8)
    return np.asarray(cv2.resize(corners, size_hw[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def _stripes(rng: Rng, size_hw: tuple[int, int]) -> Mask:
    return _above(_ramp(rng, size_hw, rng.uniform(0, np.pi)))


def _checks(rng: Rng, size_hw: tuple[int, int]) -> Mask:
    turn = rng.uniform(0, np.pi)
    return np.bitwise_xor(_above(_ramp(rng, size_hw, turn)), _above(_ramp(rng, size_hw, turn + np.pi / 2)))


def _dots(rng: Rng, size_hw: tuple[int, int]) -> Mask:
    turn = rng.uniform(0, np.pi)
    across, along = _ramp(rng, size_hw, turn), _ramp(rng, size_hw, turn + np.pi / 2)
    return _above(np.hypot(across % 1 - 0.5, along % 1 - 0.5) + 0.15)


def _marble(rng: Rng, size_hw: tuple[int, int]) -> Mask:
    return _clouds(rng, size_hw, int(rng.integers(3, 8)))


def _ramp(rng: Rng, size_hw: tuple[int, int], turn: float) -> NDArray[np.float64]:
    """Distance along a direction, in periods of 5 to 24 pixels."""
    period = rng.uniform(5, 24)
    rows, columns = np.arange(size_hw[0])[:, None], np.arange(size_hw[1])[None]
    return np.asarray((columns * np.cos(turn) + rows * np.sin(turn)) / period, np.float64)


def _above(ramp: NDArray[np.float64]) -> Mask:
    return np.where(ramp % 1 > 0.5, 255, 0).astype(np.uint8)


_TEXTURES: tuple[Callable[[Rng, tuple[int, int]], Mask], ...] = (
    _flat,
    _gradient,
    _stripes,
    _checks,
    _dots,
    _marble,
)


def _camera(rng: Rng, image: Image) -> Image:
    """Uneven light, blur, sensor noise and JPEG artefacts, each as strong as chance has it."""
    height, width = image.shape[:2]
    light = cv2.resize(
        rng.integers(85, 160, (3, 3), np.uint8), (width, height), interpolation=cv2.INTER_LINEAR
    )
    picture = cv2.multiply(image, cv2.merge([light] * 3), scale=1 / 120)
    if rng.random() < 0.4:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.8))
    noise = rng.integers(0, 256, picture.shape, np.uint8)
    strength = rng.uniform(0, 0.16)
    picture = cv2.addWeighted(picture, 1.0, noise, strength, -127.5 * strength)
    if rng.random() < 0.5:
        quality = int(rng.integers(35, 95))
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(picture, np.uint8)
