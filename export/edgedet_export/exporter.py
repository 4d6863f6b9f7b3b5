"""A checkpoint to a bundle: capture once, calibrate once, write every target, verify each."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from edgedet import registry
from edgedet.boxes import Floats
from edgedet.bundle import MANIFEST, Artifact, FileEntry, Manifest
from edgedet.data import Dataset, open_dataset
from edgedet.data.coverage import Coverage
from edgedet.errors import CheckpointError, UsageError
from edgedet.evaluate import evaluate
from edgedet.files import sha256_of, staged_directory, write_atomically
from edgedet.models.capture import Captured, capture
from edgedet.models.checkpoint import load_checkpoint, read_info, read_ranges, save_checkpoint
from edgedet.pipeline import Pipeline
from edgedet.progress import Track, silent
from edgedet.spec import CALIBRATED, MOST_IMAGES, Batch, Precision, Provenance, QuantizationSpec, Value
from edgedet_export.accuracy_budget import AccuracyBudget, BudgetReport, Calibrated, hold_budget
from edgedet_export.batch import with_batch
from edgedet_export.half import check_fits_half
from edgedet_export.outcome import note_of
from edgedet_export.quiet import converter
from edgedet_export.target import Source, Target
from edgedet_export.targets import load_targets
from edgedet_export.verify import verification_tensors, verify_exported

if TYPE_CHECKING:
    from edgedet.models.config import DetectorConfig
    from edgedet_calibration.encodings import Encoding
    from edgedet_calibration.images import CalibrationImages
    from edgedet_calibration.recipe import Recipe
    from edgedet_calibration.stats import Stats

CALIBRATION = "calibration.json"
RECIPE = "recipe.toml"
EAGER = "model.safetensors"

_TOOLS = (
    "torch",
    "torchao",
    "timm",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "litert-torch",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "tensorrt-rtx-cu12-libs",
)


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export.

    Attributes:
        checkpoint: A self-describing .safetensors file, or weights of the detector that `config` describes.
        output: The bundle's folder, which becomes visible when everything in it has been verified.
        targets: Names of `edgedet.registry.TARGETS`.
        precisions: Names of `edgedet.spec.PRECISIONS`; each target must have each.
        calibration: Images for int8 and int8-a16; a checkpoint of quantization-aware training needs none.
        stats: What was collected for them before, instead of images.
        recipe: How to quantize; the default one if not given.
        overwrite: Replace a bundle that is there.
        config: The detector, for a file of weights that does not describe it.
        budget: How much mAP INT8 may lose; layers stay float for it.
        batches: Images of one inference; of each artifact one for each of them. 1 is always among them.
        compute_capability: The one that engines for RTX GPUs are built for; None for portable ones.
    """

    checkpoint: Path
    output: Path
    targets: tuple[str, ...]
    precisions: tuple[Precision, ...]
    calibration: Dataset | None = None
    recipe: Recipe | None = None
    overwrite: bool = False
    config: DetectorConfig | None = None
    stats: Stats | None = None
    budget: AccuracyBudget | None = None
    batches: tuple[int, ...] = (1,)
    compute_capability: str | None = None


class ExportRow(Value):
    """One artifact: what was written and how far its outputs are from its source's on real images.

    `status` is "not built" where the device format could not be built on this machine, "built" where nothing
    here can run it, and `note` says why. `build_seconds` are a part of `seconds`.
    """

    target: str
    precision: Precision
    status: Literal["ok", "built", "not built"]
    file: str
    bytes: int
    max_relative_error: float
    output_snr_db: float
    seconds: float
    build_seconds: float | None = None
    note: str = ""
    batch: Batch = 1


class ExportReport(Value):
    """What an export wrote, what INT8 was calibrated on, and why that may not have been enough.

    `budget` says what a budget of accuracy took, where one was given.
    """

    bundle: str
    calibration_images: int
    budget: BudgetReport | None = None
    rows: tuple[ExportRow, ...]
    coverage: Coverage | None = None
    warnings: tuple[str, ...] = ()


def export_bundle(request: ExportRequest, track: Track = silent) -> ExportReport:
    """Export a checkpoint to every target and precision asked for, or to none.

    Raises:
        UsageError: A name does not exist, a target lacks a precision, there are no images to calibrate on, or
            the output exists.
        CheckpointError: The checkpoint cannot be loaded, or computes what is no number, or none of float16.
        CheckError: A budget of accuracy does not hold in INT8.
        VerificationError: An artifact does not compute what its source does, for each image of a batch.
        VendorError: A converter failed.
    """
    with converter("the converters' own import"):
        targets = load_targets(request.targets, request.compute_capability)
    _check_request(request, targets)
    with staged_directory(request.output, overwrite=request.overwrite, marker=MANIFEST) as folder:
        export = _Export(request, targets.values(), folder, track)
        jobs = [(precision, name) for precision in dict.fromkeys(request.precisions) for name in targets]
        export.write_eager()
        for precision, name in track(jobs, "Exporting", len(jobs)):
            export.write(name, targets[name], precision)
        manifest = export.manifest()
        write_atomically(folder / MANIFEST, manifest.model_dump_json(indent=1))
    return _report(request, export)


def _report(request: ExportRequest, export: _Export) -> ExportReport:
    stats, rows = export.stats, tuple(export.rows)
    if stats is None:
        return ExportReport(bundle=str(request.output), calibration_images=0, rows=rows)
    images = len(stats.images)
    return ExportReport(
        bundle=str(request.output),
        calibration_images=images,
        budget=export.budget,
        rows=rows,
        coverage=stats.coverage,
        warnings=_warnings(request, stats),
    )


def _warnings(request: ExportRequest, stats: Stats) -> tuple[str, ...]:
    if not stats.ranges:
        return (stats.coverage or Coverage(images=len(stats.images))).warnings
    if request.calibration is None:
        return ()
    return ("the ranges are those that training learned; the images of --calibration only verified them",)


def _check_request(request: ExportRequest, targets: dict[str, Target]) -> None:
    if not targets or not request.precisions:
        raise UsageError(
            "there is nothing to export",
            got=f"{len(targets)} targets, {len(request.precisions)} precisions",
            expected="at least one of each",
            fix="--to onnx --precision fp32",
        )
    _check_batches(request.batches)
    for name, target in targets.items():
        missing = [precision for precision in request.precisions if precision not in target.precisions]
        if missing:
            raise UsageError(
                f"the target {name} has no {', '.join(missing)}",
                got=", ".join(request.precisions),
                expected=", ".join(target.precisions),
                fix=_without_missing_pairs(request, targets),
            )
    if request.calibration is not None and request.stats is not None:
        raise UsageError(
            "INT8 is calibrated once",
            got="images and statistics that were collected before",
            expected="one of them",
            fix="leave one of them out",
        )
    has_ranges = request.stats is not None or read_ranges(request.checkpoint) is not None
    if CALIBRATED.intersection(request.precisions) and request.calibration is None and not has_ranges:
        raise UsageError(
            "INT8 needs images to calibrate on",
            got="no calibration images",
            expected="some dozens of images like those the detector will see; they need no labels",
            fix="--calibration DIR, --calibration builtin, or the calibration.json of an earlier bundle",
        )
    if request.stats is not None and request.budget is not None:
        raise UsageError(
            "a budget of accuracy needs images to calibrate on",
            got="--max-drop with statistics that were collected before",
            expected="images: biases are corrected anew for every set of layers that is tried",
            fix="--calibration DIR, or leave --max-drop out",
        )
    if "int8" not in request.precisions and request.budget is not None:
        raise UsageError(
            "a budget of accuracy is for INT8",
            got="--max-drop without int8",
            expected="int8 among the precisions",
            fix="--precision fp32,int8, or leave --max-drop out",
        )


def _check_batches(batches: Sequence[int]) -> None:
    legal = {batch for batch in batches if 1 <= batch <= MOST_IMAGES}
    if 1 not in legal or len(legal) < len(set(batches)):
        raise UsageError(
            "cannot export these batches",
            got=", ".join(map(str, batches)) or "none",
            expected=f"numbers of images from 1 to {MOST_IMAGES}, and 1 among them: detection, parity and "
            "everything else but a benchmark look at one image at a time",
            fix=f"--batch {','.join(map(str, sorted({1, *legal})))}",
        )


def _without_missing_pairs(request: ExportRequest, targets: dict[str, Target]) -> str:
    """What can be asked for instead: for all targets at once, and for the others in bundles of their own."""
    shared = [p for p in request.precisions if all(p in target.precisions for target in targets.values())]
    fixes = [f"--precision {','.join(shared)} for all of these targets"] if shared else []
    for precision in request.precisions:
        able = [name for name, target in targets.items() if precision in target.precisions]
        if able and precision not in shared:
            fixes.append(
                f"a bundle of its own for {precision}: --to {','.join(able)} --precision {precision}"
            )
    return "; or ".join(fixes) or "choose some of those with --precision"


class _Export:
    """One export under way: what was captured and calibrated, and what has been written."""

    def __init__(self, request: ExportRequest, targets: Iterable[Target], folder: Path, track: Track) -> None:
        self.request, self.folder, self._targets = request, folder, tuple(targets)
        self.rows: list[ExportRow] = []
        self.artifacts: list[Artifact] = []
        self.stats: Stats | None = None
        self.budget: BudgetReport | None = None
        self._track = track
        self.captured = _capture(request.checkpoint, request.config)
        self._float = Source(self.captured.graph_module, self.captured.example_inputs, self.captured.spec)
        images = request.calibration or open_dataset("builtin", split="test")
        most = max(request.batches)
        self._tensors: Sequence[Floats] = verification_tensors(images, self.captured.spec.input, most)
        self._floats: dict[int, Source] = {}
        _check_finite(self._float, self._tensors[0])
        if "fp16" in request.precisions:
            check_fits_half(self.captured.graph_module, self._tensors)
        if CALIBRATED.intersection(request.precisions):
            self._calibrate(track)

    def write_eager(self) -> None:
        """The checkpoint itself, for PyTorch: the reference of every comparison."""
        path = self.folder / "fp32" / EAGER
        path.parent.mkdir()
        request = self.request
        if request.config is None:
            shutil.copyfile(request.checkpoint, path)
        else:  # the copy in the bundle describes its detector, whatever was given
            save_checkpoint(path, load_checkpoint(request.checkpoint, request.config))
        entry = FileEntry.of(self.folder, path)
        self.artifacts.append(Artifact(target="torch", precision="fp32", runtime="eager", files=(entry,)))

    def write(self, name: str, target: Target, precision: Precision) -> None:
        """Export, verify and record what a target makes in one precision, for each batch."""
        source = self._source(target, precision)
        (self.folder / precision).mkdir(exist_ok=True)
        for batch in self._track(sorted(set(self.request.batches)), f"{name} {precision}"):
            self._write(name, target, source, batch)

    def _write(self, name: str, target: Target, source: Source, batch: int) -> None:
        began, precision = time.perf_counter(), source.spec.precision
        folder = self.folder / precision / (f"batch{batch}" if batch > 1 else "")
        folder.mkdir(exist_ok=True)
        exported = target.export(self._batched(source, batch), folder)
        verified = verify_exported(exported, target.runtime, source, self._tensors, batch)
        if self.budget is not None and precision in CALIBRATED and not verified.stood_in and batch == 1:
            self.budget = self._judged(f"{name} {precision}", exported.files[0], target.runtime, source)
        files = tuple(FileEntry.of(self.folder, path) for path in exported.files)
        artifact = Artifact(
            target=name,
            precision=precision,
            batch=batch,
            runtime="" if exported.missing else target.runtime,
            verified_by=verified.stood_in,
            files=files,
            quantization=source.spec.quantization,
            note=note_of(exported, verified),
        )
        self.artifacts.append(artifact)
        self.rows.append(
            ExportRow(
                target=name,
                precision=precision,
                status="not built" if exported.missing else "built" if verified.lacks else "ok",
                file=artifact.files[0].path,
                bytes=artifact.bytes,
                max_relative_error=verified.max_relative_error,
                output_snr_db=verified.snr_db,
                seconds=round(time.perf_counter() - began, 2),
                build_seconds=None if exported.build_seconds is None else round(exported.build_seconds, 2),
                note=f"{artifact.note}; {exported.missing.fix}" if exported.missing else artifact.note,
                batch=batch,
            )
        )

    def _judged(self, what: str, path: Path, runtime: str, source: Source) -> BudgetReport:
        """The budget's report with the mAP of an artifact."""
        assert self.budget is not None
        assert self.request.budget is not None
        with registry.RUNTIMES.load(runtime)(path, spec=source.spec) as opened:
            report = evaluate(Pipeline(opened), self.request.budget.dataset, self._track)
        return self.budget.with_artifact(what, report.map or 0.0)

    def manifest(self) -> Manifest:
        """The manifest of what has been written."""
        extras = [path for name in (CALIBRATION, RECIPE) if (path := self.folder / name).exists()]
        return Manifest(
            spec=self.captured.spec,
            artifacts=tuple(self.artifacts),
            files=tuple(FileEntry.of(self.folder, path) for path in extras),
            tools=self.captured.spec.provenance.tools,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _calibrate(self, track: Track) -> None:
        from edgedet_calibration.recipe import Recipe

        self.recipe = self.request.recipe or Recipe()
        stats = self.request.stats
        learned = read_ranges(self.request.checkpoint)
        if learned is not None or (stats is not None and stats.ranges):
            self.recipe = self.recipe.learned(pair_safe=learned is not None and learned.pair_safe)
        else:
            registry.OBSERVERS.load(self.recipe.observer)
        self.recipe.check_names(node.name for node in self.captured.graph_module.graph.nodes)
        self.stats = self._collect(track) if stats is None else self._reuse(stats)
        if self.request.budget is not None:
            images = self._images(self.request.calibration or self.request.budget.dataset)
            calibrated = Calibrated(self.captured, self.stats, self.recipe, self._encodings(), images)
            self.recipe, self.stats, self.budget = hold_budget(calibrated, self.request.budget, track)
        write_atomically(self.folder / CALIBRATION, self.stats.model_dump_json())
        write_atomically(self.folder / RECIPE, self.recipe.to_toml())
        self._calibration_sha256 = sha256_of(self.folder / CALIBRATION)

    def _collect(self, track: Track) -> Stats:
        from edgedet_calibration.calibrate import calibrate
        from edgedet_calibration.correction import with_corrections
        from edgedet_calibration.stats import Stats

        captured, recipe = self.captured, self.recipe
        if learned := read_ranges(self.request.checkpoint):
            spec = captured.spec
            return Stats.learned(spec.provenance.checkpoint_sha256, spec.input, learned.tensors)
        assert self.request.calibration is not None
        images = self._images(self.request.calibration)
        stats = calibrate(captured, images, recipe, track)
        return with_corrections(captured, stats, recipe, self._encodings(), images, track)

    def _images(self, dataset: Dataset) -> CalibrationImages:
        from edgedet_calibration.images import CalibrationImages

        return CalibrationImages(dataset, self.captured.spec.input, self.recipe.images)

    def _reuse(self, stats: Stats) -> Stats:
        """Refuse what does not fit before anything is converted."""
        from edgedet_calibration.placement import place

        spec, placement = self.captured.spec, place(self.captured.graph_module, self.recipe.keeps_float)
        stats.check_fits(spec.provenance.checkpoint_sha256, spec.input, placement.ranges)
        stats.check_reusable(self.recipe, [encoding.arithmetic for encoding in self._encodings()])
        return stats

    def _encodings(self) -> list[Encoding]:
        """Those of all artifacts that were asked for."""
        from edgedet_calibration.encodings import ENCODINGS

        return [
            ENCODINGS[target.encodings[precision]]
            for precision in self.request.precisions
            for target in self._targets
            if precision in target.encodings
        ]

    def _source(self, target: Target, precision: Precision) -> Source:
        if precision in CALIBRATED:
            return self._quantized(precision, target.encodings[precision], target.fold_weights)
        spec = self.captured.spec.model_copy(update={"precision": precision})
        return Source(self.captured.graph_module, self.captured.example_inputs, spec)

    def _batched(self, source: Source, batch: int) -> Source:
        """The source for so many images; targets share conversions of the float graph, and so its copies."""
        if source.graph_module is not self.captured.graph_module:
            return with_batch(source, batch)
        if batch not in self._floats:
            self._floats[batch] = with_batch(self._float, batch)
        return replace(self._floats[batch], spec=source.spec.with_batch(batch))

    def _quantized(self, precision: Precision, encoding: str, fold_weights: bool) -> Source:
        from edgedet_calibration.encodings import ENCODINGS
        from edgedet_calibration.quantize import quantize

        assert self.stats is not None
        graph_module = quantize(
            self.captured, self.stats, self.recipe, ENCODINGS[encoding], fold_weights=fold_weights
        )
        quantization = QuantizationSpec(
            encoding=encoding,
            observer=self.recipe.observer,
            granularity=self.recipe.weights,
            float_layers=self.recipe.float_layers,
            pair_safe=self.recipe.pair_safe and ENCODINGS[encoding].pair_safe,
            calibration_sha256=self._calibration_sha256,
        )
        update: dict[str, Any] = {"precision": precision, "quantization": quantization}
        spec = self.captured.spec.model_copy(update=update)
        return Source(graph_module, self.captured.example_inputs, spec)


def _capture(checkpoint: Path, config: DetectorConfig | None = None) -> Captured:
    detector = load_checkpoint(checkpoint, config)
    provenance = Provenance(
        checkpoint_sha256=sha256_of(checkpoint),
        trained_on="" if config else read_info(checkpoint).data,
        tools=_tools(),
    )
    with torch.no_grad():
        return capture(detector, detector.spec().model_copy(update={"provenance": provenance}))


def _check_finite(source: Source, tensor: Floats) -> None:
    with torch.inference_mode():
        outputs = source.graph_module(torch.from_numpy(tensor))
    for output, values in zip(source.spec.outputs, outputs, strict=True):
        if not torch.isfinite(values).all():
            raise CheckpointError(
                "the checkpoint cannot be exported",
                got=f"values of {output.name} that are not finite",
                expected="numbers, for every image",
                fix="export an earlier checkpoint, or train again with a lower learning rate",
            )


def _tools() -> dict[str, str]:
    tools = {}
    for name in ("edgedet", *_TOOLS):
        try:
            tools[name] = version(name)
        except PackageNotFoundError:
            continue
    return tools
