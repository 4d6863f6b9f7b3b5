"""Integer tensors that runtimes give, against what other parsers read from the files."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedet import registry
from edgedet.bundle import Bundle
from edgedet.errors import TensorError, UsageError
from edgedet_runtimes.ort_intermediates import with_integer_outputs
from edgedet_runtimes.shell import Runtime

RUNTIMES = ("ort", "openvino", "tflite")


def opened(bundle: Bundle, runtime: str, precision: str) -> Runtime:
    found: Runtime = registry.RUNTIMES.load(runtime)(bundle.path_of(bundle.artifact(runtime, precision)))
    return found


def noise(runtime: Runtime) -> dict[str, np.ndarray]:
    (spec,) = runtime.inputs
    return {spec.name: np.random.default_rng(3).uniform(-1, 1, spec.shape).astype(np.float32)}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_first_is_the_image_in_integers(full_bundle: Bundle, runtime: str) -> None:
    with opened(full_bundle, runtime, "int8") as one:
        feeds = noise(one)
        first, *others = one.intermediates(feeds).tensors
        (image,) = feeds.values()
        assert np.abs(first.values() - image).max() <= 0.51 * first.scale
        assert len(others) > 60
        for tensor in others:
            assert tensor.integers.max() > tensor.integers.min()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_reading_them_changes_no_output(full_bundle: Bundle, runtime: str) -> None:
    with opened(full_bundle, runtime, "int8") as one:
        feeds = noise(one)
        outputs, found = one.run(feeds), one.intermediates(feeds).outputs
        assert found.keys() == outputs.keys()
        for name, values in outputs.items():
            # OpenVINO adds residuals beside its convolutions where sums are read.
            noise_energy = float(np.square(values - found[name]).sum())
            limit = 1e-3 * float(np.square(values).sum()) if runtime == "openvino" else 0.0
            assert noise_energy <= limit


@pytest.mark.parametrize("runtime", ["eager", *RUNTIMES])
def test_float_artifacts_have_none(full_bundle: Bundle, runtime: str) -> None:
    with opened(full_bundle, runtime, "fp32") as one:
        assert one.intermediates(noise(one)).tensors == ()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_wrong_feeds_and_closed_runtimes_are_refused(full_bundle: Bundle, runtime: str) -> None:
    one = opened(full_bundle, runtime, "int8")
    feeds = noise(one)
    with pytest.raises(TensorError):
        one.intermediates({"x": next(iter(feeds.values()))})
    one.close()
    with pytest.raises(UsageError):
        one.intermediates(feeds)


def test_onnx_tensors_are_those_of_the_quantizers_of_activations(full_bundle: Bundle) -> None:
    path = full_bundle.path_of(full_bundle.artifact("ort", "int8"))
    graph = onnx.load(path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    expected = [
        (float(constants[node.input[1]]), int(constants[node.input[2]]))
        for node in graph.node
        if node.op_type == "QuantizeLinear"
    ]
    with opened(full_bundle, "ort", "int8") as one:
        found = [(tensor.scale, tensor.zero_point) for tensor in one.intermediates(noise(one)).tensors]
    assert found == expected


def constant(kind: int, field: bytes) -> bytes:
    """A TensorProto named zero: its data type, and a field as it lies in the file."""
    return bytes([0x10, kind]) + field + b"\x42\x04zero"


@pytest.mark.parametrize(
    ("kind", "field", "zero_point"),
    [
        (TensorProto.UINT8, b"\x4a\x01\xc8", 200),  # raw
        (TensorProto.UINT8, b"\x2a\x02\xc8\x01", 200),  # int32_data, packed
        (TensorProto.UINT8, b"\x28\xc8\x01", 200),  # int32_data, one by one
        (TensorProto.INT8, b"\x28" + b"\xfb" + b"\xff" * 8 + b"\x01", -5),
        (TensorProto.INT8, b"\x4a\x01\xfb", -5),
        (None, b"", 0),  # QuantizeLinear may do without
    ],
)
def test_zero_points_are_read_however_they_are_written(
    kind: int | None, field: bytes, zero_point: int
) -> None:
    names = ["scale"] if kind is None else ["scale", "zero"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *names], ["q"]),
        helper.make_node("DequantizeLinear", ["q", *names], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [0.5])
    graph = helper.make_graph(nodes, "one", ends[:1], ends[1:], [scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.ClearField("graph")
    inner = graph.SerializeToString()
    if kind is not None:
        tensor = constant(kind, field)
        inner += b"\x2a" + bytes([len(tensor)]) + tensor  # a further initializer
    length = bytes([len(inner) & 0x7F | 0x80, len(inner) >> 7])
    changed, (found,) = with_integer_outputs(model.SerializeToString() + b"\x3a" + length + inner)
    assert (found.scale, found.zero_point) == (0.5, zero_point)
    session = onnxruntime.InferenceSession(changed, providers=["CPUExecutionProvider"])
    (integers,) = session.run([found.tensor], {"x": np.array([1.0, 2.0], np.float32)})
    assert integers.tolist() == [zero_point + 2, zero_point + 4]


def test_a_scale_that_is_no_initializer_is_refused() -> None:
    nodes = [helper.make_node("QuantizeLinear", ["x", "scale"], ["y"])]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
        helper.make_tensor_value_info("scale", TensorProto.FLOAT, []),
        helper.make_tensor_value_info("y", TensorProto.UINT8, [2]),
    ]
    model = helper.make_model(helper.make_graph(nodes, "one", ends[:2], ends[2:]))
    with pytest.raises(ValueError, match="'scale' is no initializer"):
        with_integer_outputs(model.SerializeToString())
