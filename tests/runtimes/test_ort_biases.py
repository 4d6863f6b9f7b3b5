"""ONNX Runtime adds float biases as floats: its optimizer would round them to int32, which may overflow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edgedet_runtimes import ort


def test_a_float_bias_of_many_steps_is_added_as_it_is(tmp_path: Path) -> None:
    """2 is 5 billion steps of 2e-5 x 2e-5: such scales are those of channels that carry no signal."""
    scale = np.float32(2e-5)
    constants = {
        "scale": scale,
        "zero": np.int8(0),
        "weights": np.ones((1, 1, 1, 1), np.int8),
        "bias": np.array([2], np.float32),
        "step": np.float32(0.0625),
    }
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
            helper.make_node("DequantizeLinear", ["weights", "scale", "zero"], ["w"]),
            helper.make_node("Conv", ["dq", "w", "bias"], ["sum"]),
            helper.make_node("QuantizeLinear", ["sum", "step", "zero"], ["sum_q"]),
            helper.make_node("DequantizeLinear", ["sum_q", "step", "zero"], ["y"]),
        ],
        "bias",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 2, 2])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    path = tmp_path / "bias.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    feeds = {"x": np.zeros((1, 1, 2, 2), np.float32)}
    (as_it_is,) = ort._session(path, ort._options(threads=1)).run(None, feeds)
    np.testing.assert_array_equal(as_it_is, np.full((1, 1, 2, 2), 2, np.float32))
    (optimized,) = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(
        None, feeds
    )
    assert not np.allclose(optimized, 2, rtol=0.1), (
        "the optimizer keeps biases: the option has no use any more"
    )
