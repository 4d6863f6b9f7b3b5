"""An ONNX file that keeps tensors in other files is told from one that does not, wherever they hide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedet import registry
from edgedet.errors import BundleError
from edgedet.spec import DetectorSpec
from edgedet_runtimes.ort_external_data import has_external_data

onnx = pytest.importorskip("onnx", reason="the export extra is not installed")

# Weights that look like anything, so that a search for words would find some.
WEIGHTS = np.random.default_rng(0).integers(0, 256, 40_000).astype(np.uint8)


def tensor(*, external: bool) -> Any:
    made = onnx.numpy_helper.from_array(WEIGHTS, "w")
    if external:
        onnx.external_data_helper.set_external_data(made, location="w.data")
        made.ClearField("raw_data")
    return made


def model(place: str, *, external: bool) -> bytes:
    """A model that holds the tensor in one of the places where ONNX has any."""
    helper = onnx.helper
    weights = tensor(external=external)
    graph, functions = helper.make_graph([], "g", [], []), []
    if place == "initializer":
        graph.initializer.append(weights)
    elif place == "sparse":
        graph.sparse_initializer.add().values.CopyFrom(weights)
    elif place == "attribute":
        graph.node.append(helper.make_node("Constant", [], ["w"], value=weights))
    elif place == "tensors":
        graph.node.append(helper.make_node("Own", [], ["w"], values=[weights], domain="own"))
    elif place == "branch":
        inner = helper.make_graph([], "inner", [], [], [weights])
        graph.node.append(helper.make_node("If", ["c"], ["w"], then_branch=inner, else_branch=inner))
    elif place == "function":
        node = helper.make_node("Constant", [], ["w"], value=weights)
        functions.append(helper.make_function("own", "f", [], ["w"], [node], []))
    made = helper.make_model(graph, functions=functions)
    if place == "training":
        made.training_info.add().algorithm.initializer.append(weights)
    return bytes(made.SerializeToString())


@pytest.mark.parametrize(
    "place", ["initializer", "sparse", "attribute", "tensors", "branch", "function", "training"]
)
def test_external_data_is_found_in_every_place_of_a_tensor(place: str) -> None:
    assert has_external_data(model(place, external=True))
    assert not has_external_data(model(place, external=False))


@pytest.mark.parametrize("size", [1, 20, 1000])
def test_a_file_that_ends_early_is_no_model(size: int) -> None:
    with pytest.raises(ValueError, match="protobuf"):
        has_external_data(model("initializer", external=False)[:size])


def test_a_model_with_external_data_is_not_opened_although_the_data_is_there(
    spec: DetectorSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = registry.RUNTIMES.load("ort")
    path = tmp_path / "model.onnx"
    path.write_bytes(model("initializer", external=True))
    (tmp_path / "w.data").write_bytes(WEIGHTS.tobytes())
    monkeypatch.chdir(tmp_path)
    for attempt in (lambda: runtime(path, spec=spec), lambda: runtime.read_spec(path)):
        with pytest.raises(BundleError, match="external data is not part of an artifact"):
            attempt()
