"""Integer tensors that runtimes give, against what other parsers read from the files."""

from __future__ import annotations

import numpy as np
import pytest

from edgedet import registry
from edgedet.bundle import Bundle
from edgedet.errors import TensorError, UsageError
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
        before = one.run(feeds)
        one.intermediates(feeds)
        after = one.run(feeds)
        assert all(np.array_equal(before[name], after[name]) for name in before)


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
    import onnx
    from onnx import numpy_helper

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


@pytest.mark.parametrize("packed", [False, True])
def test_zero_points_may_be_stored_as_numbers(packed: bool) -> None:
    """onnx writes small constants raw; other tools write the typed fields."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    from edgedet_runtimes.ort_intermediates import with_integer_outputs

    constants = [
        helper.make_tensor("scale", TensorProto.FLOAT, [], [0.5], raw=False),
        helper.make_tensor("zero", TensorProto.UINT8, [], bytes([200]) if packed else [200], raw=packed),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph(nodes, "one", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content, (tensor,) = with_integer_outputs(model.SerializeToString())
    assert (tensor.scale, tensor.zero_point) == (0.5, 200)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run([tensor.tensor], {"x": np.array([1.0, -1.0], np.float32)})
    assert found.tolist() == [202, 198]
    assert [output.name for output in onnx.load_from_string(content).graph.output] == ["y", "q"]
