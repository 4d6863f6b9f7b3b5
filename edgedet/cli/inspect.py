"""`edgedet inspect`: what is in a bundle or an artifact, and whether it is whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgedet.bundle import MANIFEST, Artifact, Bundle, FileEntry, Manifest, open_bundle, runtime_of
from edgedet.cli.executed import show_executed
from edgedet.cli.options import ModelArgument, RuntimesOption, ThreadsOption, runtimes_from
from edgedet.cli.output import JsonOption, Output, open_output
from edgedet.cli.quantization import check_whole, int8_artifacts, show_quantization
from edgedet.cli.saturation import Found, cell, found_of, record, show_inexact
from edgedet.errors import BundleError, UsageError
from edgedet.files import inside
from edgedet.pipeline import load
from edgedet.proof import INTEGER_PRECISIONS, prove
from edgedet.spec import DetectorSpec


def run(
    model: ModelArgument,
    quantization: Annotated[
        bool,
        typer.Option("--quantization", help="Also every quantized tensor of the int8 artifacts of a bundle."),
    ] = False,
    executed: Annotated[
        bool,
        typer.Option("--executed", help="Show what each runtime executes, and what of INT8 is in float."),
    ] = False,
    runtimes: RuntimesOption = None,
    threads: ThreadsOption = None,
    json: JsonOption = None,
) -> None:
    """Show what a bundle or a file holds.

    Every file of a bundle is checked against its sha256. INT8 is proved to be exact on every x86 processor,
    or the layers are named whose sums can overflow where there is no VNNI. With --executed: the operators
    that runtimes really execute, and a warning for each chain of INT8 that is in float. --runtimes chooses
    whose are shown.
    """
    chosen = runtimes_from(runtimes)
    _check_options(chosen, threads, quantization=quantization, executed=executed)
    if quantization:
        check_whole(model)
    with open_output(json) as output:
        if executed:
            show_executed(model, chosen, threads, output)
        elif model.is_file() and model.name != MANIFEST:
            _inspect_file(model, output)
        else:
            bundle = open_bundle(model.parent if model.name == MANIFEST else model)
            _inspect_bundle(bundle, output, int8_artifacts(bundle, chosen) if quantization else None)


def _check_options(
    chosen: tuple[str, ...] | None, threads: int | None, *, quantization: bool, executed: bool
) -> None:
    """Refuse options that say nothing of what is inspected."""
    idle = [
        name
        for name, given in (
            ("--runtimes", chosen is not None and not (quantization or executed)),
            ("--threads", threads is not None and not executed),
            ("--quantization", quantization and executed),
        )
        if given
    ]
    if idle:
        beside = "beside --executed" if quantization and executed else "without a table that it chooses"
        raise UsageError(
            "cannot inspect that",
            got=f"{', '.join(idle)} {beside}",
            expected="--executed or --quantization, the first with --threads, both with --runtimes",
            fix="add one of the two, or leave the others out",
        )


def _inspect_file(path: Path, output: Output) -> None:
    runtime = runtime_of(path)
    proof = prove(runtime, path)
    output.line(f"{path}: {path.stat().st_size:,} bytes, opened by {runtime}")
    try:
        with load(path, batch=None) as pipeline:
            spec = pipeline.spec
    except BundleError:
        # No file of edgedet's; its integers can be told all the same.
        show_inexact({path.name: proof}, output)
        raise
    _show_spec(spec, output)
    shown: Found = proof if spec.precision in INTEGER_PRECISIONS else None
    if shown is not None:
        output.line(f"{path.name}: {cell(shown)}")
        show_inexact({path.name: shown}, output)
    values = {"path": str(path), "runtime": runtime, "saturation": record(shown)}
    output.json({**values, "spec": spec.model_dump(mode="json")})


def _inspect_bundle(bundle: Bundle, output: Output, quantized: Sequence[Artifact] | None) -> None:
    manifest = bundle.manifest
    damage = {entry: _damage(bundle, entry) for entry in _entries(manifest)}
    proofs = [found_of(bundle, a) if _is_whole(a.files, damage) else None for a in manifest.artifacts]
    output.line(f"{bundle.root}: {len(manifest.artifacts)} artifacts")
    _show_spec(bundle.spec, output)
    output.line()
    output.table(
        ("target", "precision", "runtime", "file", "bytes", "sha256", "state", "quantization", "x86", "note"),
        [
            (
                artifact.target,
                artifact.precision,
                artifact.runtime or None,
                artifact.files[0].path,
                artifact.bytes,
                artifact.files[0].sha256[:12],
                _state(bundle, artifact.files, damage),
                _quantization(artifact),
                cell(proof),
                artifact.note,
            )
            for artifact, proof in zip(manifest.artifacts, proofs, strict=True)
        ],
    )
    named = zip((a.files[0].path for a in manifest.artifacts), proofs, strict=True)
    show_inexact(dict(named), output)
    if manifest.files:
        output.line()
        output.table(
            ("made with file", "bytes", "sha256", "state"),
            [(e.path, e.bytes, e.sha256[:12], _state(bundle, [e], damage)) for e in manifest.files],
        )
    for title, table in (("provenance", _provenance(bundle)), ("made with", manifest.tools)):
        if table:
            output.line()
            output.table((title, ""), list(table.items()))
    values = manifest.model_dump(mode="json")
    for artifact, proof, shown in zip(manifest.artifacts, proofs, values["artifacts"], strict=True):
        shown |= {"whole": _is_whole(artifact.files, damage), "saturation": record(proof)}
    for entry, shown in zip(manifest.files, values["files"], strict=True):
        shown["whole"] = damage[entry] is None
    faults = {entry: error for entry, error in damage.items() if error is not None}
    if quantized is not None and not faults:
        values["quantization"] = show_quantization(bundle, quantized, output)
    output.json({"path": str(bundle.root), **values})
    if faults:
        raise _all_of(bundle, faults)


def _all_of(bundle: Bundle, faults: Mapping[FileEntry, BundleError]) -> BundleError:
    if len(faults) == 1:
        return next(iter(faults.values()))
    return BundleError(
        f"{len(faults)} files of {bundle.root} are not what was exported",
        got=", ".join(f"{entry.path} is {_what_became(bundle, entry)}" for entry in faults),
        expected="every file with the sha256 that bundle.json lists",
        fix="copy the whole folder again, or export again",
    )


def _entries(manifest: Manifest) -> Iterator[FileEntry]:
    """Every file that the manifest lists."""
    for artifact in manifest.artifacts:
        yield from artifact.files
    yield from manifest.files


def _is_whole(entries: Iterable[FileEntry], damage: Mapping[FileEntry, BundleError | None]) -> bool:
    return all(damage[entry] is None for entry in entries)


def _state(
    bundle: Bundle, entries: Sequence[FileEntry], damage: Mapping[FileEntry, BundleError | None]
) -> str:
    """What became of the files: "whole", "changed", or which of them are missing."""
    if _is_whole(entries, damage):
        return "whole"
    gone = [entry.path for entry in entries if not inside(bundle.root, entry.path).is_file()]
    return f"{', '.join(Path(path).name for path in gone)} missing" if gone else "changed"


def _what_became(bundle: Bundle, entry: FileEntry) -> str:
    return "changed" if inside(bundle.root, entry.path).is_file() else "missing"


def _damage(bundle: Bundle, entry: FileEntry) -> BundleError | None:
    try:
        bundle.check(entry)
    except BundleError as exc:
        return exc
    return None


def _quantization(artifact: Artifact) -> str | None:
    how = artifact.quantization
    if how is None:
        return None
    kept = f", {len(how.float_layers)} layers float" if how.float_layers else ""
    return f"{how.encoding}, {how.observer}, {how.granularity}{kept}"


def _provenance(bundle: Bundle) -> dict[str, Any]:
    origin = bundle.spec.provenance
    facts = {
        "created": bundle.manifest.created,
        "checkpoint sha256": origin.checkpoint_sha256[:12],
        "trained on": origin.trained_on,
    }
    return {name: fact for name, fact in facts.items() if fact}


def _show_spec(spec: DetectorSpec, output: Output) -> None:
    size, labels = spec.input.size_hw, spec.labels
    count = f"{spec.input.batch} images of " if spec.input.batch > 1 else ""
    shown = ", ".join(labels[:8]) + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")
    output.table(
        ("detector", spec.name),
        [
            (
                "input",
                f"{spec.input.name}, {count}{size[0]}x{size[1]}, {spec.input.colour}, {spec.input.resize}",
            ),
            *((o.role, f"{o.name}, {'x'.join(map(str, o.shape))}, {o.dtype}") for o in spec.outputs),
            ("decoder", f"{spec.decoder.family}, {spec.decoder.priors.count} priors"),
            ("labels", f"{len(labels)}: {shown}"),
            (
                "thresholds",
                f"score {spec.score_threshold}, IoU {spec.iou_threshold}, at most {spec.max_detections}",
            ),
            ("precision", spec.precision),
        ],
    )
