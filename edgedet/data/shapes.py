"""Outlines of the shapes in the built-in data set, one function a class.

An outline is one or more closed contours `[n, 2]` in x, y around the origin, within a circle of radius 1;
where contours overlap, the even-odd rule makes holes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Contour = NDArray[np.float64]

_ARC_POINTS = 48


def _arc(start: float, stop: float, radius: float = 1.0, centre_x: float = 0.0) -> Contour:
    angles = np.linspace(start, stop, _ARC_POINTS)
    return np.stack([centre_x + radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _polygon(corners: int) -> Contour:
    angles = np.arange(corners) * (2 * np.pi / corners) - np.pi / 2
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def circle(rng: np.random.Generator) -> list[Contour]:  # noqa: ARG001
    """A disc."""
    return [_arc(0, 2 * np.pi)]


def crescent(rng: np.random.Generator) -> list[Contour]:
    """A disc without a disc of the same size beside it."""
    shift = rng.uniform(0.5, 0.8)
    half = np.arccos(shift / 2)
    outer = _arc(half, 2 * np.pi - half)
    inner = _arc(np.pi + half, np.pi - half, centre_x=shift)
    return [np.concatenate([outer, inner])]


def cross(rng: np.random.Generator) -> list[Contour]:
    """A plus sign."""
    arm = rng.uniform(0.22, 0.36)
    reach = float(np.sqrt(1 - arm * arm))
    quarter = np.array([[arm, -reach], [arm, -arm], [reach, -arm]])
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    corners = [quarter]
    for _ in range(3):
        corners.append(corners[-1] @ turn.T)
    return [np.concatenate(corners)]


def heart(rng: np.random.Generator) -> list[Contour]:  # noqa: ARG001
    """The usual parametric heart: x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t."""
    t = np.linspace(0, 2 * np.pi, _ARC_POINTS)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [np.stack([16 * np.sin(t) ** 3, -y - 2.5], axis=1) / 17]


def ring(rng: np.random.Generator) -> list[Contour]:
    """A disc with a round hole."""
    return [_arc(0, 2 * np.pi), _arc(0, 2 * np.pi, radius=rng.uniform(0.45, 0.7))]


def square(rng: np.random.Generator) -> list[Contour]:  # noqa: ARG001
    """A square."""
    return [_polygon(4)]


def star(rng: np.random.Generator) -> list[Contour]:
    """A star of five points."""
    points = _polygon(10)
    points[1::2] *= rng.uniform(0.38, 0.5)
    return [points]


def triangle(rng: np.random.Generator) -> list[Contour]:  # noqa: ARG001
    """An equilateral triangle."""
    return [_polygon(3)]


OUTLINES: dict[str, Callable[[np.random.Generator], list[Contour]]] = {
    "circle": circle,
    "crescent": crescent,
    "cross": cross,
    "heart": heart,
    "ring": ring,
    "square": square,
    "star": star,
    "triangle": triangle,
}
