"""One artifact on one device, and its running comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from edgedet.boxes import Floats
from edgedet.bundle import Artifact
from edgedet.data.dataset import LabelledImage
from edgedet.errors import EdgedetError
from edgedet.evaluate import AccuracyReport, Evaluator
from edgedet.intermediate import Intermediates
from edgedet.parity.budgets import Budgets
from edgedet.parity.compare import (
    DecodedComparison,
    DetectionComparison,
    MatchCount,
    OutputComparison,
    match_within,
)
from edgedet.parity.foreign import ForeignField
from edgedet.parity.frame import Frame, QuantizedReferences
from edgedet.parity.input_tensor import InputComparison
from edgedet.parity.judge import Measured, judge_outputs
from edgedet.parity.layers import LayerReference, LayersReport
from edgedet.parity.overflow import overflow_reason
from edgedet.parity.rows import Judged
from edgedet.parity.view import View
from edgedet.spec import DetectorSpec

# An artifact whose own spec says otherwise here has no outputs or classes to hold against the reference's.
_INCOMPARABLE = frozenset({"labels", "outputs"})

# Feeds, the integer tensors of an inference with them, and the raw outputs of one that gives no more.
Layers = tuple[Mapping[str, Floats], Intermediates, Mapping[str, Floats]]


class UnreadImageError(Exception):
    """A source could not read an image that was read here; its `input` knows why."""


class ViewSource(Protocol):
    """An artifact that looks at images, here or on another machine.

    Attributes:
        artifact: Its entry in the manifest.
        device: Where it runs.
        spec: The one in the file.
        foreign_fields: Fields in which that is not what the bundle says.
        input: Its input tensors against those of the bundle's spec.
    """

    artifact: Artifact
    device: str
    input: InputComparison

    @property
    def spec(self) -> DetectorSpec:
        """The spec in the file."""

    @property
    def foreign_fields(self) -> tuple[ForeignField, ...]:
        """Fields in which it differs."""

    @property
    def saturates(self) -> bool:
        """Whether the processor there adds INT8 products in 16 bits."""

    def view(self, frame: Frame) -> View:
        """What it makes of an image.

        Raises:
            EdgedetError: It fails.
            UnreadImageError: It cannot read this image.
        """

    def layers(self, frame: Frame) -> Layers:
        """What its layers make of an image; no tensors where its runtime gives none."""


class Lane:
    """One artifact and its running comparison."""

    def __init__(
        self, source: ViewSource, spec: DetectorSpec, budgets: Budgets, fakes: QuantizedReferences
    ) -> None:
        self._source, self._spec, self._bundle = source, spec, fakes.bundle
        self._budget = budgets.of(source.artifact.precision)
        self._reference_key = fakes.open(source.artifact)
        self._failure = ""
        if not _INCOMPARABLE.isdisjoint(one.field for one in source.foreign_fields):
            self._failure = "it was not run, since such outputs and classes cannot be compared"
        self._images = 0
        self._outputs = OutputComparison([output.name for output in spec.outputs])
        self._decoded = DecodedComparison(self._budget, spec.score_threshold)
        self._detections = DetectionComparison(spec.labels, self._budget, spec.score_threshold)
        self._same_integers: MatchCount | None = None  # where that is not what `_detections` compares
        if self._reference_key is not None and self._reference_key.observer != "learned":
            self._same_integers = MatchCount()
        self._evaluator = Evaluator(spec.labels)
        self._layers: LayersReport | None = None
        self._frames: list[Frame] = []  # the first, and that with the most noise
        self._most_noise = -1.0
        self._fake = None if self._reference_key is None else fakes.opened[self._reference_key]

    @property
    def is_noisy(self) -> bool:
        """Whether raw outputs left their budget."""
        return not self._failure and bool(judge_outputs(self._outputs.differences(), None, self._budget))

    def compare_layers(self) -> str:
        """See what each layer makes of what it reads; returns why that was not seen, "" where it was.

        The images are the first and the one whose raw outputs have the most noise.
        """
        source, reference = self._source, self._fake
        where = "" if source.device == "local" else f" on {source.device}"
        what = f"the layers of {source.artifact.runtime} {source.artifact.precision}{where} were not compared"
        if reference is None or self._failure:
            return ""
        if source.spec.input != self._spec.input:
            return f"{what}: its input is not that of the bundle"
        if not isinstance(reference, LayerReference):
            return f"{what}: its runtime gives none"
        comparison = reference.layers()
        try:
            for frame in self._frames:
                feeds, found, outputs = source.layers(frame)
                if not found.tensors:
                    return f"{what}: its runtime gives none"
                comparison.add(feeds, found, outputs)
        except EdgedetError as exc:
            return f"{what}: {exc}"
        report = comparison.report()
        if report.missing == report.quantized:
            return f"{what}: its runtime gives none"
        self._layers = report
        return ""

    def add(self, labelled: LabelledImage, frame: Frame) -> None:
        """Run the image, unless an earlier one has shown that this artifact does not run."""
        if self._failure:
            return
        try:
            view = self._source.view(frame)
        except UnreadImageError:
            return
        except EdgedetError as exc:
            self._failure = f"the runtime failed: {frame.image.image_id}: {exc}"
            return
        self._images += 1
        limit, threshold = self._spec.max_detections, self._spec.score_threshold
        key = self._reference_key
        expected = frame.float_view if key is None else frame.fake_views[key]
        # Weights that were trained in 8 bits are not what anyone would run in float.
        trained = expected if key is not None and key.observer == "learned" else frame.float_view
        found = view.detections.above(threshold)[:limit]
        self._detections.add(labelled.image_id, trained.detections.above(threshold)[:limit], found)
        if self._same_integers is not None:
            same = expected.detections.above(threshold)[:limit]
            self._same_integers.add(match_within(self._budget, threshold, same, found))
        self._evaluator.add(labelled, view.detections)
        noise = self._outputs.add(expected.outputs, view.outputs)
        if noise > self._most_noise:
            self._most_noise = noise
            self._frames = [*self._frames[:1], frame]
        self._decoded.add(expected.candidates, view.candidates)

    def judged(self, reference: AccuracyReport) -> Judged:
        """Everything measured, once all images were added."""
        failed = bool(self._failure)
        evaluator = Evaluator(self._spec.labels) if failed else self._evaluator
        same_integers = self._detections if self._same_integers is None else self._same_integers
        artifact = self._source.artifact
        measured = Measured(
            failure=self._failure,
            foreign=self._source.foreign_fields,
            input=self._source.input,
            outputs=None if failed else self._outputs.differences(),
            layers=None if failed else self._layers,
            decoded=None if failed else self._decoded,
            detections=self._detections,
            same_integers=same_integers.matched_fraction,
            accuracy=evaluator.report(),
            reference=reference,
            image_outputs=self._outputs.images,
            saturation=overflow_reason(self._bundle, artifact) if self._source.saturates else "",
        )
        return Judged(artifact, self._source.device, self._images, measured)
