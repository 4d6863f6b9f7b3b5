"""The integers of ONNX files are read as they lie in the file, whatever operators hold them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedet import registry
from edgedet.proof import Proof, prove
from edgedet.saturation import IntegerLayer
from edgedet_runtimes.ort_integer_layers import _FLOAT, _STAYS_FLOAT, integer_layers

onnx = pytest.importorskip("onnx", reason="the export extra is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
helper = onnx.helper

CHANNELS = 4
# Outputs, inputs and the kernel. Every weight is another one.
KERNELS = np.random.default_rng(0).permutation(np.arange(-48, 48))[: 6 * CHANNELS * 4].astype(np.int8)
KERNELS = KERNELS.reshape(6, CHANNELS, 2, 2)
MATRIX = KERNELS[:, :, 0, 0]  # outputs and inputs

Tensors = dict[str, Any]
SCALES: Tensors = {"s": np.float32(0.1), "z": np.uint8(3), "zw": np.int8(0)}


def model(nodes: list[Any], tensors: Tensors, *, way: str = "raw", **options: Any) -> bytes:
    """A model of nodes from `x`; tensors are written in the way given."""
    constants = [written(name, np.asarray(values), way) for name, values in tensors.items()]
    graph = helper.make_graph(nodes, "g", [], [], constants)
    return bytes(helper.make_model(graph, **options).SerializeToString())


def written(name: str, values: Any, way: str) -> Any:
    if way == "raw" or values.dtype not in (np.int8, np.uint8):
        return onnx.numpy_helper.from_array(values, name)
    made = onnx.TensorProto(name=name, dims=values.shape)
    made.data_type = onnx.TensorProto.INT8 if values.dtype == np.int8 else onnx.TensorProto.UINT8
    made.int32_data.extend(values.ravel().tolist())
    return made


def node(kind: str, inputs: str, output: str = "y", **attributes: Any) -> Any:
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(kind, names, [output], name=f"the {kind}", **attributes)


def between(kind: str, weight: Any, *, axis: int = 0, **attributes: Any) -> tuple[list[Any], Tensors]:
    """A layer between Q/DQ, its weights integers."""
    nodes = [
        node("QuantizeLinear", "x s z", "xq"),
        node("DequantizeLinear", "xq s z", "xd"),
        node("DequantizeLinear", "w sw", "wd", axis=axis),
        node(kind, "xd wd", "f", **attributes),
        node("QuantizeLinear", "f s z", "y"),
    ]
    return nodes, {**SCALES, "w": weight, "sw": np.ones(weight.shape[axis], np.float32)}


# Of what ONNX Runtime makes of a file, the operators that multiply integers, with their inputs of weights.
MULTIPLIES = {"MatMulInteger": 1, "MatMulIntegerToFloat": 1, "QGemm": 3, "QLinearConv": 3, "QLinearMatMul": 3}


@pytest.fixture
def in_integers(tmp_path: Path) -> Callable[[bytes], int]:
    """Gives how many layers ONNX Runtime computes with int8 weights, of the model that it makes of a file."""

    def count(data: bytes) -> int:
        made = onnx.load_from_string(data)
        graph = made.graph
        known = {one.name for one in graph.initializer} | {
            name for node in graph.node for name in node.output
        }
        for name in dict.fromkeys(name for node in graph.node for name in node.input if name):
            if name not in known:
                axes = list("ab" if any(node.op_type == "Gemm" for node in graph.node) else "abcd")
                graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, axes))
        graph.output.append(onnx.ValueInfoProto(name=graph.node[-1].output[0]))
        for number, one in enumerate(graph.node):
            one.name = str(number)
        made.ir_version, made.opset_import[0].version = 10, 21  # which are not too new
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
        optimized = onnx.load(options.optimized_model_filepath).graph
        types = {one.name: one.data_type for one in optimized.initializer}
        weights = [one.input[MULTIPLIES[one.op_type]] for one in optimized.node if one.op_type in MULTIPLIES]
        return sum(types.get(name, onnx.TensorProto.INT8) == onnx.TensorProto.INT8 for name in weights)

    return count


Counts = Callable[[bytes], int]


@pytest.mark.parametrize("way", ["raw", "int32"])
@pytest.mark.parametrize(
    ("kind", "weight", "attributes", "read"),
    [
        ("Conv", KERNELS, {}, KERNELS),
        ("Conv", KERNELS, {"group": 2}, KERNELS),
        ("ConvTranspose", KERNELS.swapaxes(0, 1), {"axis": 1}, KERNELS),
        ("MatMul", MATRIX.T, {"axis": 1}, MATRIX),
        ("Gemm", MATRIX.T, {"axis": 1}, MATRIX),
        ("Gemm", MATRIX, {"transB": 1}, MATRIX),
    ],
)
def test_layers_between_quantizations_are_read(
    kind: str, weight: Any, attributes: dict[str, int], read: Any, way: str, in_integers: Counts
) -> None:
    data = model(*between(kind, weight, **attributes), way=way)
    (layer,) = integer_layers(data)
    assert in_integers(data) == 1 or kind in {"ConvTranspose", "Gemm"}  # which ONNX Runtime leaves in float
    assert layer.name == f"the {kind}"
    assert layer.weight is not None
    assert layer.weight.dtype == np.int8
    np.testing.assert_array_equal(layer.weight, read)
    assert not layer.is_depthwise


def test_a_transposed_convolution_has_the_outputs_of_each_group_in_turn() -> None:
    """Of two groups, inputs 0 and 1 give outputs 0 to 2, inputs 2 and 3 give outputs 3 to 5."""
    weight = np.arange(4 * 3, dtype=np.int8).reshape(4, 3, 1, 1)
    (layer,) = integer_layers(model(*between("ConvTranspose", weight, group=2)))
    assert layer.weight is not None
    assert layer.weight[:, :, 0, 0].tolist() == [[0, 3], [1, 4], [2, 5], [6, 9], [7, 10], [8, 11]]


@pytest.mark.parametrize(
    ("kind", "inputs", "weight", "attributes", "read"),
    [
        ("QLinearConv", "x s z w s zw s z", KERNELS, {}, KERNELS),
        ("ConvInteger", "x w z zw", KERNELS, {}, KERNELS),
        ("QLinearMatMul", "x s z w s zw s z", MATRIX.T, {}, MATRIX),
        ("MatMulInteger", "x w z zw", MATRIX.T, {}, MATRIX),
        ("QGemm", "x s z w s zw - s z", MATRIX, {"transB": 1, "domain": "com.microsoft"}, MATRIX),
        ("DynamicQuantizeMatMul", "x w s zw", MATRIX.T, {"domain": "com.microsoft"}, MATRIX),
        ("MatMulIntegerToFloat", "x w s s z zw", MATRIX.T, {"domain": "com.microsoft"}, MATRIX),
        ("QAttention", "x w b s s", MATRIX.T, {"domain": "com.microsoft"}, MATRIX),
    ],
)
def test_operators_of_integers_are_read(
    kind: str, inputs: str, weight: Any, attributes: dict[str, Any], read: Any
) -> None:
    (layer,) = integer_layers(model([node(kind, inputs, **attributes)], {**SCALES, "w": weight}))
    assert layer.weight is not None
    np.testing.assert_array_equal(layer.weight, read)


@pytest.mark.parametrize(("outputs", "inputs", "depthwise"), [(4, 1, True), (8, 1, False), (4, 2, False)])
def test_depthwise_is_one_filter_a_channel_and_no_multiplier(
    outputs: int, inputs: int, depthwise: bool, in_integers: Counts
) -> None:
    weight = np.full((outputs, inputs, 3, 3), 127, np.int8)
    data = model(*between("Conv", weight, group=4))
    (layer,) = integer_layers(data)
    assert in_integers(data) == 1
    assert layer.is_depthwise is depthwise
    assert Proof.of([layer]).is_exact is depthwise


@pytest.mark.parametrize(
    ("inputs", "attributes"),
    [("floats sw zeros", {}), ("floats sw", {"output_dtype": onnx.TensorProto.INT8})],
)
def test_floats_that_the_file_quantizes_are_quantized(
    inputs: str, attributes: dict[str, int], in_integers: Counts
) -> None:
    nodes, tensors = between("Conv", KERNELS)
    nodes.insert(2, node("QuantizeLinear", inputs, "w", axis=0, **attributes))
    scales = np.linspace(0.5, 2.0, 6).astype(np.float32)
    del tensors["w"]
    floats = KERNELS * scales.reshape(-1, 1, 1, 1)
    tensors |= {"floats": floats.astype(np.float32), "sw": scales, "zeros": np.zeros(6, np.int8)}
    data = model(nodes, tensors, opset_imports=[helper.make_opsetid("", 21)])
    (layer,) = integer_layers(data)
    assert in_integers(data) == 1
    assert layer.weight is not None
    np.testing.assert_array_equal(layer.weight, KERNELS)


@pytest.mark.parametrize("attributes", [{"output_dtype": 99}, {"precision": 10, "output_dtype": 3}])
def test_floats_that_a_file_quantizes_in_unknown_ways_are_never_exact(attributes: dict[str, int]) -> None:
    nodes, tensors = between("Conv", KERNELS)
    nodes.insert(2, node("QuantizeLinear", "floats s", "w", **attributes))
    tensors["floats"] = KERNELS.astype(np.float32)
    del tensors["w"]
    assert Proof.of(integer_layers(model(nodes, tensors))).unread == ("the Conv",)


@pytest.mark.parametrize("weight", [KERNELS.astype(np.uint8), KERNELS.astype(np.int16), KERNELS[0, 0, 0]])
def test_layers_whose_weights_are_no_int8_matrix_are_never_exact(weight: Any) -> None:
    proof = Proof.of([IntegerLayer("a layer", weight), IntegerLayer("depthwise", weight, is_depthwise=True)])
    assert proof.unread == ("a layer",)
    assert not proof.is_exact


def test_weights_are_followed_through_what_moves_them() -> None:
    nodes, tensors = between("MatMul", MATRIX, axis=1)
    nodes[2:4] = [
        node("DequantizeLinear", "w s", "wd"),
        node("Transpose", "wd", "wt", perm=[1, 0]),
        node("MatMul", "xd wt", "f"),
    ]
    (layer,) = integer_layers(model(nodes, tensors))
    assert layer.weight is not None
    np.testing.assert_array_equal(layer.weight, MATRIX)


# Inputs of operators beside the activations, and whether ONNX Runtime looks through them.
PASSES: dict[str, tuple[Tensors, dict[str, Any], bool]] = {
    "Add": ({"c": np.float32(0)}, {}, True),
    "Cast": ({}, {"to": onnx.TensorProto.FLOAT}, True),
    "Clip": ({"low": np.float32(0), "high": np.float32(9)}, {}, False),
    "Div": ({"c": np.float32(1)}, {}, True),
    "Dropout": ({}, {}, True),
    "Identity": ({}, {}, True),
    "MaxPool": ({}, {"kernel_shape": [2, 2]}, True),
    "Mul": ({"c": np.float32(1)}, {}, True),
    "Relu": ({}, {}, False),
    "Sub": ({"c": np.float32(0)}, {}, True),
    "Transpose": ({}, {"perm": [0, 1, 3, 2]}, True),
}


@pytest.mark.parametrize("kind", PASSES)
def test_activations_are_integers_behind_what_moves_clips_or_leaves_them(
    kind: str, in_integers: Counts
) -> None:
    constants, attributes, passes = PASSES[kind]
    nodes, tensors = between("Conv", KERNELS)
    nodes[3:4] = [
        node(kind, " ".join(["xd", *constants]), "moved", **attributes),
        node("Conv", "moved wd", "f"),
    ]
    data = model(nodes, tensors | constants, opset_imports=[helper.make_opsetid("", 21)])
    assert in_integers(data) == passes
    (layer,) = integer_layers(data)
    assert layer.weight is not None


def test_weights_behind_what_does_nothing_are_never_exact(in_integers: Counts) -> None:
    nodes, tensors = between("Conv", KERNELS)
    nodes[3:4] = [node("Mul", "wd one", "moved"), node("Conv", "xd moved", "f")]
    data = model(nodes, tensors | {"one": np.float32(1)})
    assert in_integers(data) == 1
    assert Proof.of(integer_layers(data)).unread == ("the Conv",)


@pytest.mark.parametrize("kind", sorted(_STAYS_FLOAT - _FLOAT - {"Shape", "Size"}))
def test_layers_behind_what_stays_float_are_computed_in_float(kind: str, in_integers: Counts) -> None:
    nodes, tensors = between("Conv", KERNELS)
    nodes[3:4] = [node(kind, "xd", "e"), node("Conv", "e wd", "f")]
    data = model(nodes, tensors, opset_imports=[helper.make_opsetid("", 21)])
    assert in_integers(data) == 0
    assert integer_layers(data) == ()


def test_what_is_computed_in_float_or_with_uint8_weights_is_no_such_layer(in_integers: Counts) -> None:
    weights_alone = [node("DequantizeLinear", "w sw", "wd", axis=0), node("Conv", "x wd")]
    sixteen = between("Conv", KERNELS)
    sixteen[1]["z"] = np.uint16(3)
    models = [
        model(weights_alone, between("Conv", KERNELS)[1]),
        model(*between("Conv", KERNELS.astype(np.uint8))),
        model(*sixteen, opset_imports=[helper.make_opsetid("", 21)]),
    ]
    for data in models:
        assert integer_layers(data) == ()
        assert in_integers(data) == 0
    attention = [node("QLinearMatMul", "x s z a s z s z")]
    assert integer_layers(model(attention, SCALES)) == ()


@pytest.mark.parametrize("place", ["dynamic", "external", "unknown operator", "function", "inlined"])
def test_weights_that_cannot_be_read_are_never_exact(place: str) -> None:
    nodes, tensors = between("Conv", KERNELS)
    if place == "dynamic":
        tensors.pop("w")
        data = model(nodes, tensors)
    elif place == "external":
        made = onnx.load_from_string(model(nodes, tensors))
        (weight,) = (tensor for tensor in made.graph.initializer if tensor.name == "w")
        onnx.external_data_helper.set_external_data(weight, location="w.data")
        data = made.SerializeToString()
    elif place == "unknown operator":
        data = model([node("NewConv", "x w", domain="of.a.vendor")], tensors)
    else:
        body = [node("Conv", "x w", "f")]
        if place == "function":
            body = [node("DequantizeLinear", "w s", "wd"), node("Conv", "x wd", "f")]
        function = helper.make_function("own", "f", ["x", "w", "s"], ["f"], body, [])
        data = model([node("f", "x w s", domain="own")], {"s": np.float32(1)}, functions=[function])
    proof = Proof.of(integer_layers(data))
    assert len(proof.unread) == 1
    assert not proof.is_exact
    assert proof.verdict == "cannot tell: weights of 1 layers unread"


def test_layers_in_branches_are_read() -> None:
    nodes, tensors = between("Conv", KERNELS)
    inner = helper.make_graph(nodes[3:], "inner", [], [])
    branching = helper.make_node("If", ["c"], ["out"], then_branch=inner, else_branch=inner)
    layers = integer_layers(model([*nodes[:3], branching], tensors))
    assert [layer.name for layer in layers] == ["the Conv", "the Conv"]
    assert layers[0].weight is not None
    np.testing.assert_array_equal(layers[0].weight, KERNELS)


@pytest.mark.parametrize(("first", "second", "exact"), [(100, 28, True), (100, 29, False), (100, -100, True)])
def test_one_planted_pair_is_named(tmp_path: Path, first: int, second: int, exact: bool) -> None:
    weight = np.zeros((6, CHANNELS, 2, 2), np.int8)
    weight[3, 2:4, 1, 0] = first, second
    path = tmp_path / "model.onnx"
    path.write_bytes(model(*between("Conv", weight)))
    proof = prove("ort", path)
    assert proof is not None
    assert proof.is_exact is exact
    if not exact:
        assert proof.verdict == "1 of 1 layers can overflow"
        assert proof.overflowing == "the Conv (|w1| + |w2| = 129)"
        assert proof.overflows[0].channels == 1


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    from edgedet.errors import BundleError

    path = tmp_path / "model.onnx"
    path.write_bytes(model(*between("Conv", KERNELS))[:-7])
    with pytest.raises(BundleError, match="could not read"):
        registry.RUNTIMES.load("ort").integer_layers(path)
