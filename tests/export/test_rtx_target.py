"""Engines for RTX GPUs, built here without one: what is in the bundle, what it says, what cannot be built."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedet import registry
from edgedet.bundle import Artifact, FileEntry, open_bundle
from edgedet.cli import main
from edgedet.embedded import plan_sidecar, read_bound_spec
from edgedet.errors import MissingDeviceError, MissingError, MissingExtraError, UsageError, VendorError
from edgedet.selection import cannot_run
from edgedet.spec import DetectorSpec
from edgedet_export.exporter import ExportReport, ExportRequest, export_bundle
from edgedet_export.trt_engine import COMPUTE_CAPABILITIES, TENSORRT_RTX, build_engine

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = sorted(path.stem for path in (ROOT / "weights").glob("bccd_*.safetensors"))


@pytest.fixture(scope="module")
def trt() -> Any:
    return pytest.importorskip("tensorrt_rtx_bindings", reason="the extra tensorrt-rtx is not installed")


@pytest.fixture(scope="module")
def report(trt: Any, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    """Of a small detector, portable, for one image and for two."""
    path = tmp_path_factory.mktemp("rtx") / "bundle"
    return export_bundle(ExportRequest(checkpoint, path, ("tensorrt-rtx",), ("fp32", "fp16"), batches=(1, 2)))


def _has_gpu() -> bool:
    try:
        registry.RUNTIMES.load("tensorrt-rtx").check_device()
    except MissingError:
        return False
    return True


def test_engines_are_built_on_a_machine_without_a_gpu_and_say_so(report: ExportReport) -> None:
    assert [(row.precision, row.batch) for row in report.rows] == [
        ("fp32", 1),
        ("fp32", 2),
        ("fp16", 1),
        ("fp16", 2),
    ]
    for row in report.rows:
        assert row.status == ("ok" if _has_gpu() else "built")
        assert row.build_seconds is not None
        assert 0 < row.build_seconds <= row.seconds
        assert "compute capability 8.0, 8.6, 8.9, 12.0 and later" in row.note
        assert row.note.startswith("built, not run: TensorRT for RTX needs an NVIDIA RTX GPU") or _has_gpu()


def test_the_spec_is_bound_to_its_engine(report: ExportReport) -> None:
    bundle = open_bundle(report.bundle)
    for artifact in bundle.manifest.artifacts[1:]:
        engine = bundle.path_of(artifact)
        names = [Path(entry.path).name for entry in artifact.files]
        assert names == ["model.rtx", "model.rtx.spec.json", "model.rtx.onnx"]
        found = DetectorSpec.from_json(read_bound_spec(engine) or "", source="sidecar")
        assert found == bundle.spec_of(artifact)
        assert artifact.bytes == engine.stat().st_size + plan_sidecar(engine).stat().st_size
        assert (artifact.runtime, artifact.verified_by) == ("tensorrt-rtx", "" if _has_gpu() else "ort")


def test_an_engine_can_be_for_one_gpu(
    trt: Any, checkpoint: Path, tmp_path: Path, report: ExportReport
) -> None:
    command = ["export", checkpoint, "--to", "tensorrt-rtx", "--compute-capability", "7.5"]
    command += ["--output", tmp_path / "b", "--json", tmp_path / "report.json"]
    assert main([str(word) for word in command]) == 0, "an engine that was built is all that was asked for"
    (row,) = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert row["note"].endswith("compute capability 7.5")
    assert row["bytes"] > 2 * report.rows[0].bytes  # for Turing, kernels are compiled ahead of time


def test_compute_capabilities_are_those_that_the_builder_knows(trt: Any) -> None:
    known = {name for name in trt.ComputeCapability.__members__ if name.startswith("SM")}
    assert set(COMPUTE_CAPABILITIES.values()) == known


@pytest.mark.parametrize(
    ("targets", "name", "said"),
    [
        (("tensorrt-rtx",), "9.0", "got '9.0'; expected one of 7.5, 8.0, 8.6, 8.9, 12.0, 12.1"),
        (("onnx", "tensorrt"), "8.6", "expected tensorrt-rtx among the targets"),
    ],
)
def test_a_compute_capability_that_means_nothing_is_refused(
    checkpoint: Path, tmp_path: Path, targets: tuple[str, ...], name: str, said: str
) -> None:
    request = ExportRequest(checkpoint, tmp_path / "b", targets, ("fp32",), compute_capability=name)
    with pytest.raises(UsageError, match=said):
        export_bundle(request)
    assert list(tmp_path.iterdir()) == []


def test_without_the_builder_the_onnx_is_kept_and_the_exit_code_is_3(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    command = ["export", checkpoint, "--to", "tensorrt-rtx", "--output", tmp_path / "b"]
    assert main([*map(str, command), "--json", str(tmp_path / "report.json")]) == 3
    (row,) = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert (row["status"], row["file"]) == ("not built", "fp32/model.rtx.onnx")
    assert "no Python package 'tensorrt_rtx_bindings'" in row["note"]
    with pytest.raises(MissingError, match="was not built where the bundle was exported") as caught:
        open_bundle(tmp_path / "b").artifact("tensorrt-rtx", "fp32")
    assert registry.install_command("tensorrt-rtx") in caught.value.fix


def test_what_the_builder_has_no_kernel_for_is_refused_with_its_reason(
    trt: Any, report: ExportReport, tmp_path: Path
) -> None:
    """The parser takes NonMaxSuppression, the builder does not."""
    values = {
        "boxes": np.random.default_rng(0).random((1, 8, 4), np.float32),
        "most": np.array([4]),
        "iou": np.array([0.5], np.float32),
    }
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1, 8])
    found = helper.make_tensor_value_info("found", TensorProto.INT64, [None, 3])
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou"], ["found"])
    constants = [numpy_helper.from_array(array, name) for name, array in values.items()]
    graph = helper.make_graph([node], "suppression", [scores], [found], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "a.onnx")
    spec = open_bundle(report.bundle).spec
    with pytest.raises(VendorError, match=r"could not build .*no plan: .*found_0 has no runners"):
        build_engine(tmp_path / "a.onnx", tmp_path / "a.rtx", spec, TENSORRT_RTX)
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_an_engine_that_was_only_built_misses_nothing_where_it_cannot_run() -> None:
    entry = FileEntry(path="int8/model.rtx", sha256="0" * 64, bytes=1)
    only_built = Artifact(
        target="tensorrt-rtx",
        precision="int8",
        runtime="tensorrt-rtx",
        verified_by="ort",
        files=(entry,),
        note="built, not run: it needs an RTX GPU",
    )
    no_gpu, no_package = MissingDeviceError("no GPU", got="no driver"), MissingExtraError("x", got="no cuda")
    assert cannot_run(only_built, no_gpu).reason == only_built.note
    assert cannot_run(only_built, no_gpu, "ssh://pi").reason == f"ssh://pi: {only_built.note}"
    assert "no cuda" in cannot_run(only_built, no_package).reason
    assert not any(cannot_run(only_built, why).missing for why in (no_gpu, no_package))
    was_run = only_built.model_copy(update={"verified_by": ""})
    assert cannot_run(was_run, no_gpu).missing
    assert cannot_run(was_run, no_gpu).reason == str(no_gpu)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMITTED)
def test_every_committed_backbone_is_accepted_and_built(trt: Any, name: str, tmp_path: Path) -> None:
    from edgedet.data import open_dataset
    from edgedet_calibration.recipe import Recipe

    report = export_bundle(
        ExportRequest(
            ROOT / "weights" / f"{name}.safetensors",
            tmp_path / "bundle",
            ("tensorrt", "tensorrt-rtx"),
            ("fp32", "fp16", "int8"),
            calibration=open_dataset("builtin", split="val"),
            recipe=Recipe(images=8, rounding="nearest"),
        )
    )
    rows = {(row.target, row.precision): row for row in report.rows}
    for precision in ("fp32", "fp16", "int8"):
        assert "accepted it" in rows["tensorrt", precision].note
        assert rows["tensorrt-rtx", precision].status in ("ok", "built")
