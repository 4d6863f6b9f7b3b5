"""What differs between the input tensor that an artifact is fed and the one that it should be fed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgedet.boxes import Floats
from edgedet.parity.compare import ERROR_LIMIT, max_abs_difference

# A cause accounts for a difference where it leaves no more than this of its root mean square: another way to
# resize or to round stays beside it.
_UNEXPLAINED = 0.05
_MAX_SHIFT = 2
# With room for float32.
_ONE_STEP = 1.01


class InputComparison:
    """Input tensors, over images that are seen once; the pair that differs most is kept.

    Attributes:
        max_abs: Largest difference of an element; `ERROR_LIMIT` where tensors cannot be compared.
        unseen: Tensors that differ by an unknown amount: a device sends only the first of those that do.
    """

    def __init__(self) -> None:
        self.max_abs = 0.0
        self.unseen = 0
        self._worst: tuple[Floats, Floats] | None = None
        self._unread: list[str] = []

    def add(self, reference: Floats, candidate: Floats) -> None:
        """Take one image's tensors, `[1, 3, h, w]`."""
        difference = max_abs_difference(reference, candidate)
        if difference > self.max_abs:
            self.max_abs, self._worst = difference, (reference, candidate)

    def add_unread(self, image_id: str, why: str) -> None:
        """Take an image of which the artifact's side could make no tensor."""
        self._unread.append(f"{image_id}: {why}")
        self.max_abs = ERROR_LIMIT

    @property
    def cause(self) -> str:
        """What turns the one tensor into the other where they differ most; "" where none of these does."""
        if self._unread:
            return f"{len(self._unread)} images cannot be read there, the first is {self._unread[0]}"
        return "" if self._worst is None else input_cause(*self._worst)


def input_cause(reference: Floats, candidate: Floats) -> str:
    """The usual mistake of preprocessing that accounts for a difference, as a sentence, or "".

    Args:
        reference: The tensor as it should be, `[1, 3, h, w]`.
        candidate: As it is.
    """
    if reference.shape != candidate.shape:
        return f"its shape is {list(candidate.shape)}, expected {list(reference.shape)}"
    for cause, explained in _explanations(reference, candidate):
        if _rms(candidate - explained) <= _UNEXPLAINED * _rms(candidate - reference):
            return cause
    if all(map(_is_rounding, reference[0], candidate[0])):
        return (
            'no value is more than one step of 8 bits off: OpenCV\'s "linear" rounds otherwise on another '
            'processor, "linear_exact" does not'
        )
    return ""


def _is_rounding(reference: Floats, candidate: Floats) -> bool:
    """Whether no element of a channel is more than one of 255 pixel values off."""
    steps = np.diff(np.unique(reference))
    return bool(steps.size) and float(np.abs(candidate - reference).max()) <= _ONE_STEP * float(steps.min())


def _explanations(reference: Floats, candidate: Floats) -> Iterator[tuple[str, Floats]]:
    """Causes, and what the candidate would be by each."""
    yield (
        "every channel is the expected one times a factor plus a constant: mean or std",
        _refitted(reference, candidate),
    )
    swapped = reference[:, ::-1]
    yield "red and blue are exchanged: BGR for RGB, or RGB for BGR", _refitted(swapped, candidate)
    steps = range(-_MAX_SHIFT, _MAX_SHIFT + 1)
    for down, right in sorted(((y, x) for y in steps for x in steps), key=lambda yx: abs(yx[0]) + abs(yx[1])):
        moved = " and ".join(_moved(down, "down", "up") + _moved(right, "to the right", "to the left"))
        if moved:
            # What came in at the edge is not known, and as it is.
            shifted = candidate.copy()
            shifted[(..., *_place(down, right))] = reference[(..., *_place(-down, -right))]
            yield f"the same content lies {moved}: the offset of letterboxing or cropping", shifted


def _refitted(reference: Floats, candidate: Floats) -> Floats:
    """The reference with factor and constant of each channel that bring it nearest to the candidate."""
    axes = (0, 2, 3)
    means = reference.mean(axis=axes, keepdims=True), candidate.mean(axis=axes, keepdims=True)
    centred = reference - means[0]
    power = np.square(centred).sum(axis=axes, keepdims=True)
    slope = (centred * (candidate - means[1])).sum(axis=axes, keepdims=True) / np.maximum(power, 1e-12)
    return np.asarray(slope * centred + means[1])


def _place(down: int, right: int) -> tuple[slice, slice]:
    return slice(max(down, 0), min(down, 0) or None), slice(max(right, 0), min(right, 0) or None)


def _moved(pixels: int, forward: str, backward: str) -> list[str]:
    unit = "pixel" if abs(pixels) == 1 else "pixels"
    return [f"{abs(pixels)} {unit} further {forward if pixels > 0 else backward}"] if pixels else []


def _rms(difference: Floats) -> float:
    return float(np.sqrt(np.square(difference.astype(np.float64)).mean()))
