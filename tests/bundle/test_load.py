from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import edgedet
from edgedet import registry
from edgedet.bundle import Artifact, Bundle, Manifest, companions, open_bundle, runtime_of
from edgedet.errors import BundleError, DataError, MissingError, UsageError
from edgedet.registry import install_command
from edgedet.selection import select


@pytest.fixture
def int8_only(full_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle as `export --precision int8` writes it: PyTorch's float checkpoint and INT8 artifacts."""
    root = tmp_path / "int8_only"
    shutil.copytree(full_bundle.root, root)
    manifest = full_bundle.manifest
    kept = tuple(a for a in manifest.artifacts if a.precision == "int8" or a.runtime == "eager")
    (root / "bundle.json").write_text(manifest.model_copy(update={"artifacts": kept}).model_dump_json())
    return root


def test_a_runtime_is_preferred_to_pytorch_whatever_its_precision(int8_only: Path) -> None:
    with edgedet.load(int8_only) as detector:
        assert (detector.runtime.name, detector.spec.precision) == ("ort", "int8")


def test_without_a_precision_the_named_runtimes_first_one_is_opened(int8_only: Path) -> None:
    with edgedet.load(int8_only, runtime="openvino") as detector:
        assert detector.spec.precision == "int8"


def test_without_any_name_float_comes_first(full_bundle: Bundle) -> None:
    with edgedet.load(full_bundle.root) as detector:
        assert (detector.runtime.name, detector.spec.precision) == ("ort", "fp32")


def test_a_lone_file_of_another_precision_is_refused(full_bundle: Bundle) -> None:
    path = full_bundle.root / "fp32" / "model.onnx"
    with pytest.raises(UsageError, match="is not int8"):
        edgedet.load(path, precision="int8")


def test_a_file_that_differs_from_the_manifest_is_not_opened(full_bundle: Bundle, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(full_bundle.root, root)
    path = root / "fp32" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError, match="not the file that was exported"):
        edgedet.load(root, runtime="ort", precision="fp32")


def test_a_manifest_that_names_a_file_outside_the_bundle_is_refused(
    full_bundle: Bundle, tmp_path: Path
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(full_bundle.root, root)
    text = (root / "bundle.json").read_text().replace("fp32/model.onnx", "../../model.onnx")
    (root / "bundle.json").write_text(text)
    assert Manifest.model_validate_json(text)
    with pytest.raises(BundleError, match="outside itself"):
        edgedet.load(root, runtime="ort", precision="fp32")


@pytest.mark.parametrize("listed", [True, False])
def test_a_file_that_a_runtime_would_read_without_being_listed_is_refused(
    full_bundle: Bundle, tmp_path: Path, listed: bool
) -> None:
    """OpenVINO reads `model.bin` beside `model.xml`, whatever the manifest says of it."""
    root = tmp_path / "copy"
    shutil.copytree(full_bundle.root, root)
    bundle = open_bundle(root)
    artifact = bundle.artifact("openvino", "fp32")
    assert len(artifact.files) == 2
    if listed:
        bundle.path_of(artifact)
        return
    with pytest.raises(BundleError, match=r"model\.bin, which is read with model\.xml"):
        bundle.path_of(artifact.model_copy(update={"files": artifact.files[:1]}))


def test_a_folder_inside_a_bundle_names_the_bundle(full_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=f"give {full_bundle.root}"):
        edgedet.load(full_bundle.root / "fp32")


def test_what_opencv_gives_for_an_unreadable_file_is_refused_with_the_reason(full_bundle: Bundle) -> None:
    with (
        edgedet.load(full_bundle.root) as detector,
        pytest.raises(DataError, match=r"cv2\.imread gives None"),
    ):
        detector(None)


def without_files(bundle: Bundle, keep: Callable[[Artifact], bool], tmp_path: Path) -> Path:
    """A manifest alone, of the artifacts that `keep` takes."""
    kept = tuple(a for a in bundle.manifest.artifacts if keep(a))
    root = tmp_path / "manifest"
    root.mkdir()
    (root / "bundle.json").write_text(
        bundle.manifest.model_copy(update={"artifacts": kept}).model_dump_json()
    )
    return root


@pytest.mark.parametrize("precision", [None, "int8"])
def test_an_engine_that_was_not_built_is_missing_with_the_reason_of_the_export(
    full_bundle: Bundle, tmp_path: Path, precision: str | None
) -> None:
    def as_not_built(artifact: Artifact) -> Artifact:
        change = {"runtime": "", "note": "engine not built here: no GPU"}
        return artifact.model_copy(update=change) if artifact.target == "tensorrt" else artifact

    artifacts = tuple(map(as_not_built, full_bundle.manifest.artifacts))
    bundle = Bundle(full_bundle.root, full_bundle.manifest.model_copy(update={"artifacts": artifacts}))
    root = without_files(bundle, lambda a: True, tmp_path)
    with pytest.raises(
        MissingError, match=r"was not built where the bundle was exported \(.*no GPU\)"
    ) as caught:
        edgedet.load(root, runtime="tensorrt", precision=precision)
    assert install_command("tensorrt") in caught.value.fix
    with pytest.raises(MissingError, match="was not built"):
        bundle.artifact("tensorrt", "fp32")
    with pytest.raises(MissingError, match="was not built"):
        select(bundle, ["tensorrt"], None)
    _, skipped = select(bundle, ["ort", "tensorrt"], None)
    assert {(s.runtime, s.reason) for s in skipped} == {("tensorrt", "engine not built here: no GPU")}


def test_a_bundle_with_nothing_to_run_says_so_in_whole_words(full_bundle: Bundle, tmp_path: Path) -> None:
    root = without_files(full_bundle, lambda a: a.runtime == "", tmp_path)
    with pytest.raises(UsageError, match="has no artifact that can be run; got files that no runtime opens"):
        edgedet.load(root)
    (tmp_path / "other").mkdir()
    root = without_files(
        full_bundle, lambda a: a.runtime == "ort" and a.precision == "fp32", tmp_path / "other"
    )
    with pytest.raises(UsageError, match="has no artifact for int8; got int8; expected one of ort fp32"):
        edgedet.load(root, precision="int8")


def test_a_runtime_that_only_the_table_knows_is_tried_before_pytorch(
    full_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = {name: registry.RUNTIMES.entry(name) for name in registry.RUNTIMES}
    entries["another"] = entries["ort"]
    monkeypatch.setattr(registry, "RUNTIMES", registry.Table("runtime", entries))
    root = tmp_path / "copy"
    shutil.copytree(full_bundle.root, root)
    kept = [a for a in full_bundle.manifest.artifacts if a.runtime in ("eager", "ort")]
    artifacts = [a.model_copy(update={"runtime": "another"}) if a.runtime == "ort" else a for a in kept]
    manifest = full_bundle.manifest.model_copy(update={"artifacts": tuple(artifacts)})
    (root / "bundle.json").write_text(manifest.model_dump_json())
    with edgedet.load(root) as detector:
        assert detector.runtime.name == "ort", "which opens the files of the other one here"


def test_a_precision_may_be_written_in_capitals(full_bundle: Bundle) -> None:
    with edgedet.load(full_bundle.root, precision="INT8") as detector:
        assert detector.spec.precision == "int8"
    artifacts, _ = select(full_bundle, ["ort"], ["Int8"])
    assert [artifact.precision for artifact in artifacts] == ["int8"]
    with pytest.raises(
        UsageError,
        match=r"no precision of that name; got 'int4'; expected one of fp32, fp16, int8, int8-a16,",
    ):
        edgedet.load(full_bundle.root, precision="int4")


def test_a_lone_file_is_told_by_how_its_name_ends(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"x")
    with pytest.raises(BundleError, match="whose name has no ending"):
        runtime_of(tmp_path / "model")
    with pytest.raises(BundleError, match="no such path"):
        runtime_of(tmp_path / "model.onnx")
    with pytest.raises(BundleError, match="no such path"):
        edgedet.load(tmp_path / "model.onnx", runtime="ort")
    (tmp_path / "model.onnx").write_bytes(b"x")
    assert runtime_of(tmp_path / "model.onnx") == "ort"


def test_a_null_character_in_a_path_of_the_manifest_is_refused(full_bundle: Bundle, tmp_path: Path) -> None:
    root = without_files(full_bundle, lambda a: a.runtime == "ort", tmp_path)
    text = (root / "bundle.json").read_text()
    (root / "bundle.json").write_text(text.replace("model.onnx", r"model\u0000.onnx"))
    with pytest.raises(BundleError, match="cannot be there"):
        edgedet.load(root)


@pytest.mark.parametrize(
    ("runtime", "precision"), [("ort", "fp32"), ("tflite", "int8"), ("openvino", "int8"), ("eager", "fp32")]
)
def test_the_ending_of_a_lone_file_may_be_in_capitals(
    full_bundle: Bundle, tmp_path: Path, runtime: str, precision: str
) -> None:
    source = full_bundle.path_of(full_bundle.artifact(runtime, precision))
    path = tmp_path / source.name.upper()
    for file in (source, *companions(source)):
        shutil.copy(file, tmp_path / file.name.upper())
    with edgedet.load(path) as detector:
        assert (detector.runtime.name, detector.spec.precision) == (runtime, precision)
