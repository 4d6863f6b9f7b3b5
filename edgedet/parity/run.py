"""One pass over the images with every artifact open: each image is decoded and preprocessed once for all.

The reference of detections and mAP is the float detector in PyTorch. Raw outputs of a calibrated artifact are
compared with the fake-quantized PyTorch module of its encoding instead, so that a fault of a runtime is told
from the cost of quantization; so are the detections of one that was trained in 8 bits, for whose weights in
float nobody asked. Memory does not grow with the images but for their detections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Any

from edgedet import registry
from edgedet.boxes import Floats
from edgedet.bundle import Artifact, Bundle
from edgedet.data.dataset import Dataset, LabelledImage, nothing_to
from edgedet.decode import Candidates, find_candidates, suppress
from edgedet.detections import Detections
from edgedet.environment import read_environment
from edgedet.errors import BundleError, EdgedetError
from edgedet.evaluate import (
    EVALUATION_SCORE_THRESHOLD,
    MAX_DETECTIONS,
    AccuracyReport,
    Evaluator,
    shared_classes,
    with_detector_classes,
)
from edgedet.files import sha256_of
from edgedet.parity.budgets import Budgets, load_budgets
from edgedet.parity.compare import (
    DecodedComparison,
    DetectionComparison,
    OutputComparison,
    max_abs_difference,
)
from edgedet.parity.judge import Measured, judge_outputs
from edgedet.parity.layers import IntermediateSource, LayerReference, LayersReport
from edgedet.parity.opened import REFERENCE, Opened, open_reference, open_selected
from edgedet.parity.report import ParityReport, Reference
from edgedet.parity.rows import Judged, parity_rows, warnings_of
from edgedet.pipeline import RuntimeLike
from edgedet.preprocess import Geometry, preprocess
from edgedet.progress import Track, silent
from edgedet.spec import CALIBRATED, DetectorSpec, QuantizationSpec

# An artifact whose own spec says otherwise here has no outputs or classes to hold against the reference's.
_INCOMPARABLE = frozenset({"labels", "outputs"})


def run_parity(
    bundle: Bundle,
    dataset: Dataset,
    runtimes: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    budgets: Budgets | None = None,
    track: Track = silent,
    limit: int | None = None,
    *,
    layers: bool = False,
) -> ParityReport:
    """Compare a bundle's artifacts with its float detector on real images.

    Args:
        bundle: The bundle; it must hold the float detector (`eager` `fp32`).
        dataset: Images, and boxes for mAP where it has them.
        runtimes: Names of runtimes that must be compared; by default all that the bundle and this machine
            have.
        precisions: Precisions that must be compared; by default all of the bundle.
        budgets: What may differ; by default `load_budgets()`.
        track: Shows progress.
        limit: Most images, the first of the data set.
        layers: Look at all calibrated artifacts' layers, not only where raw outputs leave their budget.

    Raises:
        DataError: There is no readable image, or no class is shared with the detector.
        UsageError: A name does not exist or the bundle lacks what was asked for.
        MissingError: PyTorch, a runtime that was asked for, or what the reference of INT8 artifacts needs is
            not installed.
        BundleError: The bundle lacks what the reference of its INT8 artifacts is made from.
    """
    spec, budgets = bundle.spec, budgets or load_budgets()
    mapping = shared_classes(dataset.labels, spec.labels)
    images: Iterable[LabelledImage] = dataset if limit is None else islice(dataset, limit)
    total = len(dataset) if limit is None else min(limit, len(dataset))
    with ExitStack() as stack:
        reference = open_reference(bundle, stack)
        opened, skipped = open_selected(bundle, runtimes, precisions, stack)
        fakes = _QuantizedReferences(bundle, stack)
        lanes = [_Lane(one, spec, budgets, fakes) for one in track(opened, "Preparing", len(opened))]
        evaluator, found, seen = Evaluator(spec.labels), 0, 0
        for image in track(images, "Comparing", total):
            labelled = with_detector_classes(image, mapping)
            frame = _Frame(image, spec, reference.runtime, fakes)
            evaluator.add(labelled, frame.float_view.detections)
            evaluator.add_left_out(image, dataset.labels)
            found += len(frame.float_view.detections.above(spec.score_threshold)[: spec.max_detections])
            seen += 1
            for lane in lanes:
                lane.add(labelled, frame)
        if not seen:
            raise nothing_to("compare on", dataset)
        wanted = [lane for lane in lanes if layers or lane.is_noisy]
        warnings = [lane.compare_layers() for lane in track(wanted, "Comparing layers", len(wanted))]
    truth = evaluator.report()
    rows = parity_rows([lane.judged(truth) for lane in lanes], spec.labels, budgets)
    warnings = [truth.left_out_line, *warnings_of(seen, found, rows), fakes.warning(seen), *warnings]
    return ParityReport(
        detector=spec.name,
        checkpoint_sha256=spec.provenance.checkpoint_sha256,
        data=" ".join(dict.fromkeys(filter(None, (dataset.format, dataset.root.name, dataset.split)))),
        data_summary=dataset.summary.record(),
        images=seen,
        boxes=truth.boxes,
        left_out=truth.left_out,
        score_threshold=spec.score_threshold,
        reference=Reference(
            runtime=REFERENCE[0],
            precision=reference.artifact.precision,
            map=truth.map,
            map50=truth.map50,
            detections=found,
        ),
        rows=rows,
        skipped=tuple(skipped),
        budgets=budgets,
        environment=read_environment(),
        warnings=tuple(filter(None, warnings)),
        passed=all(row.passed for row in rows),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """What one runtime made of one image; detections reach down to `_floor` and are cut later."""

    outputs: Mapping[str, Floats]
    candidates: Candidates
    detections: Detections

    @staticmethod
    def of(runtime: RuntimeLike, tensor: Floats, spec: DetectorSpec, geometry: Geometry) -> _View:
        """Run and decode; `spec` says how, and its threshold is lowered to `_floor`."""
        outputs = runtime.run({spec.input.name: tensor})
        candidates = find_candidates(outputs, spec, geometry, _floor(spec))
        limit = max(spec.max_detections, MAX_DETECTIONS)
        return _View(outputs, candidates, suppress(candidates, spec, limit=limit))


def _floor(spec: DetectorSpec) -> float:
    """The score down to which all is decoded, once: what suppression keeps above a higher one is the same."""
    return min(EVALUATION_SCORE_THRESHOLD, spec.score_threshold)


class _QuantizedReferences:
    """The fake-quantized modules of the bundle's encodings, each opened once and shared."""

    def __init__(self, bundle: Bundle, stack: ExitStack) -> None:
        self._bundle, self._stack = bundle, stack
        self._references: Any = None
        self._seen_before = 0
        self.opened: dict[QuantizationSpec, RuntimeLike] = {}

    def open(self, artifact: Artifact) -> QuantizationSpec | None:
        """Make the reference of an artifact ready; returns its key in `opened`, None for the float one."""
        key = artifact.quantization
        if artifact.precision not in CALIBRATED:
            return None
        if key is None:
            raise BundleError(
                f"{artifact.files[0].path} cannot be compared",
                got=f"an {artifact.precision} artifact without a word on how it was quantized",
                expected="its encoding, observer and calibration in bundle.json",
                fix=f"export again with --precision {artifact.precision}",
            )
        if key not in self.opened:
            self._references = self._references or registry.REFERENCES.load("int8")(self._bundle)
            runtime: RuntimeLike = self._references.open(artifact)
            self._stack.callback(runtime.close)
            self.opened[key] = runtime
        return key

    def look_at(self, image: LabelledImage) -> None:
        """Count an image that INT8 was calibrated on."""
        known = self._references.calibrated_on if self._references is not None else ()
        if known and image.path.is_file():
            self._seen_before += sha256_of(image.path) in known

    def warning(self, images: int) -> str:
        """What a reader should know of the images, or ""."""
        if not self._seen_before:
            return ""
        return (
            f"{self._seen_before} of {images} images are among those that INT8 was calibrated on, which "
            "flatters it; judge it on others: --split, or calibrate with --split"
        )


class _Frame:
    """One image and what the references made of it."""

    def __init__(
        self, image: LabelledImage, spec: DetectorSpec, reference: RuntimeLike, fakes: _QuantizedReferences
    ) -> None:
        self.image, self.spec = image, spec
        fakes.look_at(image)
        self.tensor, self.geometry = preprocess(image.image_bgr, spec.input)
        self.float_view = self.view(reference)
        self.fake_views = {key: self.view(runtime) for key, runtime in fakes.opened.items()}

    def view(self, runtime: RuntimeLike) -> _View:
        """What a runtime that takes the shared tensor makes of it."""
        return _View.of(runtime, self.tensor, self.spec, self.geometry)


class _Lane:
    """One artifact and its running comparison."""

    def __init__(
        self, opened: Opened, spec: DetectorSpec, budgets: Budgets, fakes: _QuantizedReferences
    ) -> None:
        self._artifact, self._runtime, self._spec = opened.artifact, opened.runtime, spec
        self._own = opened.runtime.spec
        budget = budgets.of(opened.artifact.precision)
        self._reference_key = fakes.open(opened.artifact)
        self._foreign = opened.foreign_fields
        self._failure = ""
        if not _INCOMPARABLE.isdisjoint(self._foreign):
            self._failure = "it was not run, since such outputs and classes cannot be compared"
        self._images = 0
        self._input_max_abs = 0.0
        self._outputs = OutputComparison([output.name for output in spec.outputs])
        self._decoded = DecodedComparison(budget, spec.score_threshold)
        self._detections = DetectionComparison(spec.labels, budget, spec.score_threshold)
        self._evaluator = Evaluator(spec.labels)
        self._budget = budget
        self._layers: LayersReport | None = None
        self._tensors: list[Floats] = []  # of the first image, and of that with the most noise
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
        runtime, reference = self._runtime, self._fake
        what = f"the layers of {self._artifact.runtime} {self._artifact.precision} were not compared"
        if reference is None or self._failure:
            return ""
        if self._own.input != self._spec.input:
            return f"{what}: its input is not that of the bundle"
        if not isinstance(runtime, IntermediateSource) or not isinstance(reference, LayerReference):
            return f"{what}: its runtime gives none"
        comparison = reference.layers()
        try:
            for tensor in self._tensors:
                feeds = {self._spec.input.name: tensor}
                found = runtime.intermediates(feeds)
                if not found.tensors:
                    return f"{what}: its runtime gives none"
                comparison.add(feeds, found, runtime.run(feeds))
        except EdgedetError as exc:
            return f"{what}: {exc}"
        report = comparison.report()
        if report.missing == report.quantized:
            return f"{what}: its runtime gives none"
        self._layers = report
        return ""

    def add(self, labelled: LabelledImage, frame: _Frame) -> None:
        """Run the image, unless an earlier one has shown that this artifact does not run."""
        if self._failure:
            return
        try:
            view = self._view(frame)
        except EdgedetError as exc:
            self._failure = f"the runtime failed: {frame.image.image_id}: {exc}"
            return
        self._images += 1
        limit, threshold = self._spec.max_detections, self._spec.score_threshold
        key = self._reference_key
        expected = frame.float_view if key is None else frame.fake_views[key]
        # Weights that were trained in 8 bits are not what anyone would run in float.
        trained = expected if key is not None and key.observer == "learned" else frame.float_view
        self._detections.add(
            labelled.image_id,
            trained.detections.above(threshold)[:limit],
            view.detections.above(threshold)[:limit],
        )
        self._evaluator.add(labelled, view.detections)
        noise = self._outputs.add(expected.outputs, view.outputs)
        if noise > self._most_noise:
            self._most_noise = noise
            self._tensors = [*self._tensors[:1], frame.tensor]
        self._decoded.add(expected.candidates, view.candidates)

    def judged(self, reference: AccuracyReport) -> Judged:
        """Everything measured, once all images were added."""
        failed = bool(self._failure)
        evaluator = Evaluator(self._spec.labels) if failed else self._evaluator
        measured = Measured(
            failure=self._failure,
            foreign=self._foreign,
            input_max_abs=self._input_max_abs,
            outputs=None if failed else self._outputs.differences(),
            layers=None if failed else self._layers,
            decoded=None if failed else self._decoded,
            detections=self._detections,
            accuracy=evaluator.report(),
            reference=reference,
        )
        return Judged(self._artifact, self._images, measured)

    def _view(self, frame: _Frame) -> _View:
        """The artifact runs on the tensor that its own spec asks for and is decoded as its own spec says."""
        tensor, geometry = self._tensor(frame)
        return _View.of(self._runtime, tensor, self._own, geometry)

    def _tensor(self, frame: _Frame) -> tuple[Floats, Geometry]:
        if self._own.input == self._spec.input:
            return frame.tensor, frame.geometry
        tensor, geometry = preprocess(frame.image.image_bgr, self._own.input)
        self._input_max_abs = max(self._input_max_abs, max_abs_difference(frame.tensor, tensor))
        return tensor, geometry
