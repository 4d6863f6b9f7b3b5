"""One target in one precision: exported, verified and recorded, for each batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedet.boxes import Floats
from edgedet.bundle import Artifact, FileEntry
from edgedet.spec import Precision, Value
from edgedet_export.outcome import note_of
from edgedet_export.report import ExportRow
from edgedet_export.sources import Sources
from edgedet_export.target import Source, Target
from edgedet_export.verify import check_sums, verify_exported


class Job(Value):
    """What one process writes in one go: a target in one precision."""

    target: str
    precision: Precision


class Written(Value):
    """What came of a job, for each batch, and what a user should know of it."""

    artifacts: tuple[Artifact, ...]
    rows: tuple[ExportRow, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Writer:
    """Writes jobs into the folder of a bundle.

    Attributes:
        sources: What artifacts are made from.
        tensors: Input tensors of real images that verify them.
        folder: The bundle's.
        batches: Images of one inference; of each artifact one for each of them.
    """

    sources: Sources
    tensors: Sequence[Floats]
    folder: Path
    batches: tuple[int, ...]

    def write(self, job: Job, target: Target) -> Written:
        """Export, verify and record.

        Raises:
            VendorError: The converter failed.
            VerificationError: An artifact does not compute what its source does, or sums of a pair-safe one
                can overflow.
        """
        source = self.sources.of(target, job.precision)
        (self.folder / job.precision).mkdir(exist_ok=True)
        pairs = [self._one(job, target, source, batch) for batch in sorted(set(self.batches))]
        artifacts = tuple(artifact for artifact, _ in pairs)
        warnings = tuple(filter(None, (self._check_sums(artifact, source) for artifact in artifacts)))
        return Written(artifacts=artifacts, rows=tuple(row for _, row in pairs), warnings=warnings)

    def _check_sums(self, artifact: Artifact, source: Source) -> str:
        """Prove sums of what runs here; what ONNX Runtime ran for another runtime is none of its own."""
        if artifact.verified_by:
            return ""
        path, spec = self.folder / artifact.files[0].path, source.spec.with_batch(artifact.batch)
        return check_sums(path, artifact.runtime, spec)

    def _one(self, job: Job, target: Target, source: Source, batch: int) -> tuple[Artifact, ExportRow]:
        began = time.perf_counter()
        folder = self.folder / job.precision / (f"batch{batch}" if batch > 1 else "")
        folder.mkdir(exist_ok=True)
        exported = target.export(self.sources.batched(source, batch), folder)
        verified = verify_exported(exported, target.runtime, source, self.tensors, batch)
        artifact = Artifact(
            target=job.target,
            precision=job.precision,
            batch=batch,
            runtime="" if exported.missing else target.runtime,
            verified_by=verified.stood_in,
            files=tuple(FileEntry.of(self.folder, path) for path in exported.files),
            quantization=source.spec.quantization,
            note=note_of(exported, verified),
        )
        row = ExportRow(
            target=job.target,
            precision=job.precision,
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
        return artifact, row
