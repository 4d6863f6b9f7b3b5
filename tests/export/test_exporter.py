from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgedet import registry
from edgedet.bundle import Bundle
from edgedet.data import open_dataset
from edgedet.errors import UsageError, VerificationError
from edgedet.preprocess import preprocess
from edgedet_calibration.recipe import Recipe
from edgedet_export import verify
from edgedet_export.exporter import ExportRequest, export_bundle

ROOT = Path(__file__).resolve().parents[2]


def test_a_bundle_holds_every_artifact_with_its_hash(full_bundle: Bundle) -> None:
    artifacts = {(a.target, a.precision): a for a in full_bundle.manifest.artifacts}
    targets = ("onnx", "openvino", "tflite", "tensorrt", "tensorrt-rtx")
    precisions = ("fp32", "fp16", "int8")
    assert set(artifacts) == {("torch", "fp32")} | {(t, p) for t in targets for p in precisions}
    for artifact in artifacts.values():
        assert full_bundle.path_of(artifact).stat().st_size <= artifact.bytes
    for target in ("tensorrt", "tensorrt-rtx"):  # what could not be built, or not be run, says so
        for precision in precisions:
            artifact = artifacts[target, precision]
            assert artifact.runtime == target or "engine not built here" in artifact.note
            assert not (artifact.runtime and artifact.verified_by) or "built, not run" in artifact.note
            assert "pip install" not in artifact.note, (
                "a bundle goes to other machines than the one of its export"
            )
    assert {entry.path for entry in full_bundle.manifest.files} == {"calibration.json", "recipe.toml"}


def test_int8_artifacts_are_smaller_than_the_float_ones(full_bundle: Bundle) -> None:
    sizes = {(a.target, a.precision): a.bytes for a in full_bundle.manifest.artifacts}
    # The detector is tiny: graph and metadata weigh as much as the weights, which shrink to a quarter.
    assert sizes["tflite", "int8"] < 0.6 * sizes["tflite", "fp32"]


@pytest.mark.parametrize("runtime", ["openvino", "ort", "tflite"])
def test_every_int8_artifact_follows_its_fake_quantized_reference(full_bundle: Bundle, runtime: str) -> None:
    artifact = full_bundle.artifact(runtime, "int8")
    reference = registry.REFERENCES.load("int8")(full_bundle).open(artifact)
    image = next(iter(open_dataset("builtin", split="test")))
    feeds = {"images": preprocess(image.image_bgr, full_bundle.spec.input)[0]}
    with registry.RUNTIMES.load(runtime)(full_bundle.path_of(artifact), threads=1) as opened:
        assert opened.spec == full_bundle.spec_of(artifact)
        given, wanted = opened.run(feeds), reference.run(feeds)
    for name, expected in wanted.items():
        noise = np.square(given[name] - expected).mean()
        assert 10 * np.log10(np.square(expected).mean() / noise) > verify.INT8_MIN_SNR_DB


def test_no_artifact_names_the_machine_that_made_it(full_bundle: Bundle) -> None:
    marks = [str(ROOT).encode(), str(full_bundle.root.parent).encode(), str(Path.home()).encode() + b"/"]
    files = [path for path in full_bundle.root.rglob("*") if path.is_file()]
    found = [(path.name, mark) for path in files for mark in marks if mark in path.read_bytes()]
    assert len(files) >= 12
    assert not found


def test_an_artifact_that_fails_its_check_fails_the_export_and_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "FLOAT_MAX_RELATIVE_ERROR", -1.0)
    with pytest.raises(VerificationError, match=r"model\.onnx does not compute"):
        export_bundle(ExportRequest(checkpoint, tmp_path / "b", ("onnx",), ("fp32",)))
    assert list(tmp_path.iterdir()) == []


def test_a_perturbed_weight_is_found_by_verification(
    full_bundle: Bundle, trained: Path, tmp_path: Path
) -> None:
    import onnx
    from onnx import numpy_helper

    from edgedet_export.sources import captured_checkpoint
    from edgedet_export.target import Source

    original = full_bundle.path_of(full_bundle.artifact("ort", "fp32"))
    model = onnx.load(original)
    weight = max(model.graph.initializer, key=lambda i: np.prod(i.dims))
    values = numpy_helper.to_array(weight).copy()
    values[0] += 0.5
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, tmp_path / "model.onnx")
    captured = captured_checkpoint(trained)
    source = Source(captured.graph_module, captured.example_inputs, full_bundle.spec)
    tensors = verify.verification_tensors(open_dataset("builtin", split="test"), captured.spec.input)
    assert verify.verify(original, "ort", source, tensors).max_relative_error < 1e-4
    with pytest.raises(VerificationError):
        verify.verify(tmp_path / "model.onnx", "ort", source, tensors)


def test_what_cannot_be_exported_is_refused_before_any_work(checkpoint: Path, tmp_path: Path) -> None:
    def request(**changes: object) -> ExportRequest:
        given = {"targets": ("onnx",), "precisions": ("fp32",)} | changes
        return ExportRequest(checkpoint, tmp_path / "b", **given)  # type: ignore[arg-type]

    with pytest.raises(UsageError, match="names among onnx, openvino, tensorrt, tensorrt-rtx, tflite"):
        export_bundle(request(targets=("coreml",)))
    with pytest.raises(UsageError, match="INT8 needs images"):
        export_bundle(request(precisions=("int8",)))
    with pytest.raises(UsageError, match="INT8 needs images"):
        export_bundle(request(targets=("tflite",), precisions=("int8-a16",)))
    mixed = request(targets=("onnx", "tflite"), precisions=("fp32", "int8-a16", "int8-dynamic"))
    with pytest.raises(UsageError, match="onnx has no int8-a16, int8-dynamic") as refusal:
        export_bundle(mixed)
    assert refusal.value.expected == "fp32, fp16, int8"
    assert refusal.value.fix == (
        "--precision fp32 for all of these targets; or a bundle of its own for int8-a16: --to tflite "
        "--precision int8-a16; or a bundle of its own for int8-dynamic: --to tflite --precision int8-dynamic"
    )
    with pytest.raises(UsageError, match="nothing to export"):
        export_bundle(request(targets=()))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="cannot write"):
        export_bundle(request(overwrite=True))
    assert (tmp_path / "b" / "thesis.txt").read_text() == "mine"


def test_a_bundle_is_replaced_only_when_told_to(checkpoint: Path, tmp_path: Path) -> None:
    request = ExportRequest(checkpoint, tmp_path / "b", ("onnx",), ("fp32",))
    export_bundle(request)
    with pytest.raises(UsageError, match="--overwrite"):
        export_bundle(request)
    (tmp_path / "b" / "stale.txt").write_text("from before")
    again = ExportRequest(checkpoint, tmp_path / "b", ("onnx",), ("fp32",), overwrite=True)
    report = export_bundle(again)
    assert [row.status for row in report.rows] == ["ok"]
    assert not (tmp_path / "b" / "stale.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_the_manifest_says_what_made_the_bundle(full_bundle: Bundle, trained: Path) -> None:
    from edgedet.files import sha256_of

    manifest = json.loads((full_bundle.root / "bundle.json").read_text())
    assert manifest["spec"]["provenance"]["checkpoint_sha256"] == sha256_of(trained)
    assert manifest["spec"]["provenance"]["trained_on"].startswith("builtin train: 2000 images")
    assert {"torch", "onnx", "openvino", "litert-torch"} <= set(manifest["tools"])
    assert Recipe.load(full_bundle.root / "recipe.toml") == Recipe(images=6)
