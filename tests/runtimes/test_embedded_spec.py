"""What the exporter embeds is what the runtimes read, and everything else in the file stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedet import registry
from edgedet.embedded import plan_sidecar, read_bound_spec
from edgedet.errors import BundleError
from edgedet.spec import DetectorSpec

onnx = pytest.importorskip("onnx", reason="the export extra is not installed")
passing_model = pytest.importorskip("passing_model").passing_model

from edgedet_export import metadata  # noqa: E402


def _onnx(path: Path) -> None:
    shapes = {"images": [1, 3, 4, 4], "box_offsets": [1, 12, 4], "class_logits": [1, 12, 4]}
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in shapes.items()]
    nodes = [onnx.helper.make_node("Reshape", ["images", "shape"], [name]) for name in list(shapes)[1:]]
    shape = onnx.numpy_helper.from_array(np.array([1, 12, 4]), "shape")
    graph = onnx.helper.make_graph(nodes, "main", values[:1], values[1:], [shape])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.helper.set_model_props(model, {"author": "somebody"})
    path.write_bytes(model.SerializeToString())


def _tflite(path: Path) -> None:
    path.write_bytes(passing_model("float32", metadata={"author": b"somebody"}))


def _openvino(path: Path, spec: DetectorSpec) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    _onnx(path.with_suffix(".onnx"))
    model = openvino.convert_model(path.with_suffix(".onnx"))
    metadata.save_openvino(model, path, spec)


WRITERS: dict[str, tuple[str, Callable[[Path], None], Callable[[Path, DetectorSpec], None]]] = {
    "ort": (".onnx", _onnx, metadata.embed_onnx),
    "openvino": (".xml", lambda path: None, _openvino),
    "tflite": (".tflite", _tflite, metadata.embed_tflite),
}


@pytest.fixture(params=list(WRITERS))
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path, Callable[..., None]]:
    """A runtime, a file without a spec, and what embeds one."""
    try:
        runtime = registry.RUNTIMES.load(request.param)
    except registry.MissingExtraError as exc:
        pytest.skip(str(exc))
    suffix, write, embed = WRITERS[request.param]
    path = tmp_path / f"model{suffix}"
    write(path)
    return runtime, path, embed


def test_a_lone_file_opens_with_the_spec_that_was_embedded(written: Any, spec: DetectorSpec) -> None:
    runtime, path, embed = written
    embed(path, spec)
    assert runtime.read_spec(path) == spec
    images = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    with runtime(path) as opened:
        outputs = opened.run({"images": images})
    assert all(np.array_equal(array, images.reshape(1, 12, 4)) for array in outputs.values())


def test_embedding_again_replaces_the_former_spec(written: Any, spec: DetectorSpec) -> None:
    runtime, path, embed = written
    embed(path, spec)
    size = path.stat().st_size
    embed(path, spec.model_copy(update={"score_threshold": 0.7}))
    assert runtime.read_spec(path).score_threshold == 0.7
    assert path.stat().st_size == size
    embed(path, spec)
    assert runtime.read_spec(path) == spec


@pytest.mark.parametrize("name", ["ort", "tflite"])
def test_other_metadata_stays(tmp_path: Path, spec: DetectorSpec, name: str) -> None:
    suffix, write, embed = WRITERS[name]
    path = tmp_path / f"model{suffix}"
    write(path)
    embed(path, spec)
    if name == "ort":
        assert {p.key: p.value for p in onnx.load(path).metadata_props}["author"] == "somebody"
    else:
        from edgedet_runtimes.tflite_metadata import read_metadata

        assert read_metadata(path.read_bytes(), "author") == b"somebody"


@pytest.mark.parametrize("name", ["ort", "tflite"])
@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x1c\0\0\0TFL3" + b"\xff" * 64])
def test_a_file_that_is_no_model_is_refused_and_left_as_it_is(
    tmp_path: Path, spec: DetectorSpec, name: str, content: bytes
) -> None:
    suffix, _, embed = WRITERS[name]
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="cannot write the detector spec"):
        embed(path, spec)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_the_spec_of_a_plan_lies_beside_it_and_the_plan_stays_as_it_was(tmp_path: Path, spec: Any) -> None:
    plan = tmp_path / "model.engine"
    plan.write_bytes(b"plan")
    sidecar = metadata.embed_tensorrt(plan, spec)
    assert sidecar == plan_sidecar(plan)
    assert DetectorSpec.from_json(read_bound_spec(plan) or "", source="sidecar") == spec
    assert plan.read_bytes() == b"plan"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"spec": {}}'])
def test_what_is_not_the_sidecar_of_a_plan_is_refused(tmp_path: Path, spec: Any, content: str) -> None:
    plan = tmp_path / "model.rtx"
    plan.write_bytes(b"plan")
    assert read_bound_spec(plan) is None
    plan_sidecar(plan).write_text(content)
    with pytest.raises(BundleError, match=r"model\.rtx\.spec\.json is not the spec of model\.rtx"):
        read_bound_spec(plan)


def test_the_spec_of_a_plan_is_not_taken_for_that_of_another(tmp_path: Path, spec: Any) -> None:
    first, second = tmp_path / "first.rtx", tmp_path / "second.rtx"
    for plan in (first, second):
        plan.write_bytes(plan.name.encode())
        metadata.embed_tensorrt(plan, spec)
    plan_sidecar(first).replace(plan_sidecar(second))
    with pytest.raises(BundleError, match="got the spec of the plan"):
        read_bound_spec(second)
