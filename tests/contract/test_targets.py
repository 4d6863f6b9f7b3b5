"""What every target promises, held over the table of targets: a new one is covered by its line there."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgedet import registry
from edgedet.bundle import MANIFEST, Artifact, Bundle, open_bundle
from edgedet.errors import MissingError, UsageError
from edgedet.spec import CALIBRATED, PRECISIONS, DetectorSpec


@pytest.fixture(params=list(registry.TARGETS))
def target(request: pytest.FixtureRequest) -> str:
    """Every target of the table that this machine can import."""
    try:
        registry.TARGETS.load(request.param)
    except MissingError as exc:
        pytest.skip(str(exc))
    return str(request.param)


@dataclass(frozen=True)
class Written:
    """What a target wrote into a shared bundle in one precision."""

    bundle: Bundle
    artifact: Artifact

    @property
    def spec(self) -> DetectorSpec:
        return self.bundle.spec_of(self.artifact)


@pytest.fixture(params=PRECISIONS)
def written(
    request: pytest.FixtureRequest, target: str, full_bundle: Bundle, tflite_bundle: Bundle
) -> Written:
    if request.param not in registry.TARGETS.load(target).precisions:
        pytest.skip(f"{target} has no {request.param}")
    shared = request.param in ("fp32", "fp16", "int8")
    bundle = full_bundle if shared else tflite_bundle
    (artifact,) = (
        artifact
        for artifact in bundle.manifest.artifacts
        if (artifact.target, artifact.precision) == (target, request.param)
    )
    return Written(bundle, artifact)


def test_a_target_names_a_runtime_an_encoding_and_precisions_that_exist(target: str) -> None:
    from edgedet_calibration.encodings import ENCODINGS

    kind = registry.TARGETS.load(target)
    assert kind.runtime in registry.RUNTIMES
    assert set(kind.encodings) == CALIBRATED.intersection(kind.precisions)
    assert set(kind.encodings.values()) <= set(ENCODINGS)
    assert set(kind.precisions) <= set(PRECISIONS)
    assert {"fp32", "fp16", "int8"} <= set(kind.precisions)


def test_every_precision_is_made_by_some_target() -> None:
    made = {p for name in registry.TARGETS for p in registry.TARGETS.load(name).precisions}
    assert made == set(PRECISIONS), "messages list these as the ones that there are"


def test_every_file_is_there_and_in_the_folder_of_its_precision(written: Written) -> None:
    for entry in written.artifact.files:
        path = written.bundle.check(entry)
        assert path.parent == written.bundle.root / written.artifact.precision
        assert path.stat().st_size == entry.bytes > 0


def test_the_bundle_holds_no_file_that_the_manifest_does_not_list(full_bundle: Bundle) -> None:
    manifest = full_bundle.manifest
    listed = {entry.path for artifact in manifest.artifacts for entry in artifact.files}
    listed |= {entry.path for entry in manifest.files} | {MANIFEST}
    found = {p.relative_to(full_bundle.root).as_posix() for p in full_bundle.root.rglob("*") if p.is_file()}
    assert found == listed


def test_the_spec_inside_says_how_the_artifact_was_quantized(written: Written) -> None:
    spec, kind = written.spec, registry.TARGETS.load(written.artifact.target)
    assert spec.precision == written.artifact.precision
    if spec.precision in CALIBRATED:
        assert spec.quantization is not None
        assert spec.quantization.encoding == kind.encodings[spec.precision]
    else:
        assert spec.quantization is None


def test_an_artifact_is_as_much_smaller_as_its_weights_are(written: Written, full_bundle: Bundle) -> None:
    def binary_bytes(artifact: Artifact) -> int:
        suffixes = {".bin", ".onnx", ".tflite"}
        return sum(entry.bytes for entry in artifact.files if Path(entry.path).suffix in suffixes)

    target = written.artifact.target
    artifacts = {(a.target, a.precision): a for a in full_bundle.manifest.artifacts}
    share = binary_bytes(written.artifact) / binary_bytes(artifacts[target, "fp32"])
    # The detector is tiny: graph, scales and biases weigh as much as weights in int8 do.
    smallest, largest = {
        "fp32": (1.0, 1.0),
        "fp16": (0.45, 0.6),
        "int8": (0.2, 0.7),
        "int8-a16": (0.2, 0.5),
        "int8-dynamic": (0.2, 0.4),
    }[written.spec.precision]
    assert smallest <= share <= largest


def test_its_runtime_opens_the_artifact_with_the_spec_that_was_written(written: Written) -> None:
    name, path = written.artifact.runtime, written.bundle.path_of(written.artifact)
    if written.artifact.verified_by:
        pytest.skip(f"{written.artifact.target}: {written.artifact.note}")
    with registry.RUNTIMES.load(name)(path) as runtime:
        assert name == registry.TARGETS.load(written.artifact.target).runtime
        _check_signature(runtime, written.spec)


@pytest.mark.parametrize(
    ("name", "engine", "onnx"),
    [("tensorrt", ".engine", ".trt.onnx"), ("tensorrt-rtx", ".rtx", ".rtx.onnx")],
)
def test_both_tensorrts_leave_the_onnx_that_an_engine_is_built_from(
    full_bundle: Bundle, name: str, engine: str, onnx: str
) -> None:
    onnx_runtime = registry.RUNTIMES.load("ort")
    artifacts = [a for a in full_bundle.manifest.artifacts if a.target == name]
    assert [artifact.precision for artifact in artifacts] == ["fp32", "fp16", "int8"]
    for artifact in artifacts:
        assert bool(artifact.runtime) == artifact.files[0].path.endswith(engine)
        assert artifact.runtime or "engine not built here" in artifact.note
        (entry,) = (entry for entry in artifact.files if entry.path.endswith(onnx))
        with onnx_runtime(full_bundle.check(entry)) as runtime:
            _check_signature(runtime, full_bundle.spec_of(artifact))


def _check_signature(runtime: Any, spec: DetectorSpec) -> None:
    assert runtime.spec == spec
    assert runtime.inputs == (spec.input.tensor,)
    assert [(t.name, t.shape, t.dtype) for t in runtime.outputs] == [
        (o.name, o.shape, o.dtype) for o in spec.outputs
    ]


def test_a_target_alone_writes_into_its_folder_and_nowhere_else(
    target: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgedet_export.exporter import ExportRequest, export_bundle

    places = {name: tmp_path / name for name in ("here", "temporary", "bundles")}
    for place in places.values():
        place.mkdir()
    monkeypatch.chdir(places["here"])
    monkeypatch.setattr(tempfile, "tempdir", str(places["temporary"]))
    bundle = places["bundles"] / "alone"
    report = export_bundle(ExportRequest(checkpoint, bundle, (target,), ("fp32",)))
    assert [(row.target, row.precision) for row in report.rows] == [(target, "fp32")]
    assert {a.target for a in open_bundle(bundle).manifest.artifacts} == {"torch", target}
    assert list(places["here"].iterdir()) == []
    assert list(places["temporary"].iterdir()) == []
    assert list(places["bundles"].iterdir()) == [bundle]


def test_a_precision_that_a_target_does_not_have_is_refused(
    target: str, checkpoint: Path, tmp_path: Path
) -> None:
    from edgedet_export.exporter import ExportRequest, export_bundle

    kind = registry.TARGETS.load(target)
    unknown = ["int4", *(precision for precision in PRECISIONS if precision not in kind.precisions)]
    for precision in unknown:
        request: Any = ExportRequest(checkpoint, tmp_path / "bundle", (target,), (precision,))  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=f"{target} has no {precision}"):
            export_bundle(request)
    assert list(tmp_path.iterdir()) == []
