"""Numbers as they are written in reports."""

from __future__ import annotations

NOTHING = "–"


def signed_points(fraction: float) -> str:
    """A difference of mAP in points, with a sign where it is not 0."""
    text = f"{100 * fraction:+.2f}"
    return "0.00" if float(text) == 0 else text


def points(fraction: float | None) -> str:
    """An average precision in points, with two digits."""
    return NOTHING if fraction is None else f"{100 * fraction:.2f}"


def decibels(value: float | None) -> str:
    """A signal to noise."""
    return NOTHING if value is None else f"{value:.1f} dB"


def milliseconds(value: float) -> str:
    """A time, with three digits or more."""
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms"


def megabytes(count: int) -> str:
    """A size, in 10^6 bytes."""
    return f"{count / 1e6:.2f} MB"
