from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import edgedet
from edgedet.bundle import Bundle, Manifest, open_bundle
from edgedet.errors import BundleError, DataError, UsageError


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
