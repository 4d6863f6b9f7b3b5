"""The integers of ONNX files are read as they lie in the file, whatever operators hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedet import registry
from edgedet.proof import Proof, prove
from edgedet_runtimes.ort_integer_layers import integer_layers

onnx = pytest.importorskip("onnx", reason="the export extra is not installed")
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
    kind: str, weight: Any, attributes: dict[str, int], read: Any, way: str
) -> None:
    (layer,) = integer_layers(model(*between(kind, weight, **attributes), way=way))
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
    outputs: int, inputs: int, depthwise: bool
) -> None:
    weight = np.full((outputs, inputs, 3, 3), 127, np.int8)
    (layer,) = integer_layers(model(*between("Conv", weight, group=4)))
    assert layer.is_depthwise is depthwise
    assert Proof.of([layer]).is_exact is depthwise


def test_floats_that_the_file_quantizes_are_quantized() -> None:
    nodes, tensors = between("Conv", KERNELS)
    nodes.insert(2, node("QuantizeLinear", "floats sw zeros", "w", axis=0))
    scales = np.linspace(0.5, 2.0, 6).astype(np.float32)
    del tensors["w"]
    floats = KERNELS * scales.reshape(-1, 1, 1, 1)
    tensors |= {"floats": floats.astype(np.float32), "sw": scales, "zeros": np.zeros(6, np.int8)}
    (layer,) = integer_layers(model(nodes, tensors))
    assert layer.weight is not None
    np.testing.assert_array_equal(layer.weight, KERNELS)


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


@pytest.mark.parametrize("moves", ["MaxPool", "Relu", "Transpose"])
def test_activations_are_integers_behind_what_moves_or_clips_them(moves: str) -> None:
    nodes, tensors = between("Conv", KERNELS)
    nodes[3:4] = [node(moves, "xd", "moved"), node("Conv", "moved wd", "f")]
    assert len(integer_layers(model(nodes, tensors))) == 1


def test_what_is_computed_in_float_or_with_uint8_weights_is_no_such_layer() -> None:
    weights_alone = [node("DequantizeLinear", "w sw", "wd", axis=0), node("Conv", "x wd")]
    assert integer_layers(model(weights_alone, between("Conv", KERNELS)[1])) == ()
    behind_floats, tensors = between("Conv", KERNELS)
    behind_floats[3:4] = [node("Exp", "xd", "e"), node("Conv", "e wd", "f")]
    assert integer_layers(model(behind_floats, tensors)) == ()
    assert integer_layers(model(*between("Conv", KERNELS.astype(np.uint8)))) == ()
    sixteen = between("Conv", KERNELS)
    sixteen[1]["z"] = np.uint16(3)
    assert integer_layers(model(*sixteen)) == ()
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
