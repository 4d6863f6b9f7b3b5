"""Where the spec inside an artifact is not that of its bundle, and which stage of the data that governs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgedet.parity.report import Stage
from edgedet.spec import DetectorSpec, Value

# The longest value that a sentence repeats.
_SHOWN = 120

# The longest path that matches says the stage; what is not here governs none of the data.
_STAGES: dict[str, Stage] = {
    "decoder": "decoded boxes",
    "input": "input tensor",
    "input.name": "spec",
    "iou_threshold": "detections",
    "max_detections": "detections",
    "score_threshold": "detections",
}


@dataclass(frozen=True, slots=True)
class ForeignField:
    """One field that an artifact's own spec has otherwise.

    Attributes:
        path: Where it is, with dots: `input.mean`.
        own: What the artifact has.
        expected: What the bundle has.
    """

    path: str
    own: object
    expected: object

    @property
    def field(self) -> str:
        """The field of `DetectorSpec` that it lies in."""
        return self.path.partition(".")[0]

    @property
    def stage(self) -> Stage:
        """The first stage of the data that depends on it; `spec` where none does."""
        return _STAGES.get(self.path) or _STAGES.get(self.field) or "spec"

    @property
    def reason(self) -> str:
        """One sentence for readers."""
        return (
            f"the artifact's own spec differs from that of the bundle in {self.path}: "
            f"{shown(self.own)}, expected {shown(self.expected)}"
        )


def foreign_fields(own: DetectorSpec, expected: DetectorSpec) -> tuple[ForeignField, ...]:
    """Every field in which the specs differ, in alphabetical order."""
    return tuple(sorted(_differences("", own, expected), key=lambda one: one.path))


def _differences(path: str, own: object, expected: object) -> Iterator[ForeignField]:
    if isinstance(own, Value) and isinstance(expected, Value):
        for name in type(expected).model_fields:
            yield from _differences(
                f"{path}.{name}" if path else name, getattr(own, name), getattr(expected, name)
            )
    elif own != expected:
        yield ForeignField(path, own, expected)


def shown(value: object) -> str:
    """A value of a spec as a sentence repeats it: long ones are cut."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
