"""Parity over artifacts that real runtimes run, whole and with a weight that was changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from changed_artifact import with_changed_artifact

from edgedet.bundle import Bundle, open_bundle
from edgedet.data import open_dataset
from edgedet.parity import run_parity


def with_changed_weight(bundle: Bundle, folder: Path, precision: str, near: str) -> Bundle:
    """A copy of the bundle whose ONNX file has the last weight before an output scaled by 1.2."""
    import onnx
    from onnx import numpy_helper

    def scale(path: Path) -> None:
        model = onnx.load(path)
        weight = last_weight_before(model.graph, near)
        array = numpy_helper.to_array(weight)
        scaled = array * np.float32(1.2)
        changed = np.clip(np.round(scaled), -128, 127) if array.dtype == np.int8 else scaled
        weight.CopyFrom(numpy_helper.from_array(changed.astype(array.dtype), weight.name))
        onnx.save(model, path)

    return with_changed_artifact(bundle, folder, "ort", precision, scale)


def last_weight_before(graph, output: str):
    """The weight of a convolution that is nearest to an output."""
    producers = {name: node for node in graph.node for name in node.output}
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    frontier = [output]
    while frontier:
        node = producers.get(frontier.pop(0))
        if node is None:
            continue
        if node.op_type == "Conv":
            name = node.input[1]
            while name not in initializers:  # through the dequantization of INT8 weights
                name = producers[name].input[0]
            return initializers[name]
        frontier.extend(node.input)
    raise AssertionError(f"no convolution leads to {output}")


def test_float_artifacts_agree_with_pytorch_and_a_changed_box_weight_is_named(bundle: Path, tmp_path: Path):
    data = open_dataset("builtin", "test")
    report = run_parity(open_bundle(bundle), data, limit=6)
    assert {row.runtime for row in report.rows} == {"ort", "openvino"}
    assert all(row.output_max_relative_error < 1e-4 for row in report.rows)
    assert all(row.first_stage_over_budget is None for row in report.rows), [r.reasons for r in report.rows]
    broken = with_changed_weight(open_bundle(bundle), tmp_path / "broken", "fp32", "box_offsets")
    (row,) = run_parity(broken, data, runtimes=["ort"], limit=6).rows
    assert row.first_stage_over_budget == "raw outputs"
    assert "box_offsets differs" in row.reasons[0]
    assert not any("class_logits" in reason for reason in row.reasons)


@pytest.mark.slow
def test_int8_artifacts_of_a_trained_detector_agree_and_a_changed_class_weight_is_named(
    bccd_bundle: Bundle, test_data: Path, tmp_path: Path
):
    data = open_dataset(test_data / "data" / "bccd", "test")
    report = run_parity(bccd_bundle, data, precisions=["int8"])
    assert {row.runtime for row in report.rows} == {"ort", "openvino", "tflite"}
    assert report.passed, [(row.runtime, row.reasons) for row in report.rows]
    broken = with_changed_weight(bccd_bundle, tmp_path / "broken", "int8", "class_logits")
    (row,) = run_parity(broken, data, ["ort"], ["int8"], limit=12).rows
    assert row.stages_over_budget[:2] == ("layers", "raw outputs")
    assert any("class_logits has" in reason for reason in row.reasons)
