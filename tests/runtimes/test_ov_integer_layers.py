"""The integers of OpenVINO models are read behind every way to write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedet.proof import Proof, prove

openvino = pytest.importorskip("openvino", reason="the openvino extra is not installed")

from openvino import opset13 as ops  # noqa: E402

from edgedet_runtimes.ov_integer_layers import _LAYERS, _STAYS_FLOAT, integer_layers  # noqa: E402

KERNELS = np.random.default_rng(0).permutation(np.arange(-48, 48)).astype(np.int8).reshape(6, 4, 2, 2)
MATRIX = KERNELS[:, :, 0, 0]
PADS = {"strides": [1, 1], "pads_begin": [0, 0], "pads_end": [0, 0], "dilations": [1, 1]}


def quantized(node: Any, levels: int = 256) -> Any:
    low, high, *_ = (np.float32(value) for value in (0.0, 2.55))
    return ops.fake_quantize(node, low, high, low, high, levels)


def activations(*shape: int) -> Any:
    return quantized(ops.parameter(shape, np.float32, name="x"))


def dequantized(integers: Any, *, zero_point: bool = False, scale_first: bool = False) -> Any:
    floats = ops.convert(ops.constant(integers), "f32")
    if zero_point:
        floats = ops.subtract(floats, np.float32(0))
    outputs = 2 if integers.ndim == 5 else 1  # axes that count them
    shape = (*integers.shape[:outputs], *[1] * (integers.ndim - outputs))
    scale = ops.constant(np.full(shape, 0.1, np.float32))
    return ops.multiply(scale, floats) if scale_first else ops.multiply(floats, scale)


def convolution(x: Any, weight: Any) -> Any:
    return ops.convolution(x, weight, **PADS)


def model_of(node: Any) -> Any:
    node.set_friendly_name("the layer")
    parameters = {one.get_name(): one for one in walk(node) if one.get_type_name() == "Parameter"}
    return openvino.Model([node], list(parameters.values()), "m")


def layers_of(node: Any, *, in_integers: int | None = None) -> tuple[Any, ...]:
    """What is read, which is at least what OpenVINO computes in integers, or as many as are given."""
    model = model_of(node)
    layers = integer_layers(model)
    properties = {"INFERENCE_NUM_THREADS": "1", "INFERENCE_PRECISION_HINT": "f32"}
    executed = openvino.Core().compile_model(model, "CPU", properties).get_runtime_model()
    found = sum(multiplies_integers(one) for one in executed.get_ordered_ops())
    assert found <= len(layers)
    assert in_integers in {None, found}
    return layers


def multiplies_integers(node: Any) -> bool:
    """Whether a node of a runtime model is a layer whose kernel is one in integers, as its name tells."""
    facts = {key: str(value.astype(str)) for key, value in node.get_rt_info().items()}
    is_layer = facts["layerType"] in {"Convolution", "Deconvolution", "FullyConnected", "MatMul", "RNNSeq"}
    return is_layer and facts["primitiveType"].lower().endswith(("i8", "u8"))


def walk(node: Any) -> list[Any]:
    return [node, *(found for port in node.input_values() for found in walk(port.get_node()))]


@pytest.mark.parametrize("options", [{}, {"zero_point": True}, {"scale_first": True}])
def test_integers_behind_a_dequantization_are_read(options: dict[str, bool]) -> None:
    (layer,) = layers_of(convolution(activations(1, 4, 8, 8), dequantized(KERNELS, **options)), in_integers=1)
    assert layer.name == "the layer"
    assert layer.weight.dtype == np.int8
    np.testing.assert_array_equal(layer.weight, KERNELS)


@pytest.mark.parametrize(("levels", "least"), [(256, -128), (255, -127)])
@pytest.mark.parametrize("half", [False, True])
def test_floats_behind_a_fake_quantize_are_quantized(levels: int, least: int, half: bool) -> None:
    scale = np.float32(1 / 32)  # exact in float16
    floats = KERNELS.astype(np.float32) * scale
    constant = ops.convert(ops.constant(floats.astype(np.float16)), "f32") if half else ops.constant(floats)
    low, high = np.float32(least * scale), np.float32(127 * scale)
    weight = ops.fake_quantize(constant, low, high, low, high, levels)
    (layer,) = layers_of(convolution(activations(1, 4, 8, 8), weight), in_integers=1)
    assert layer.weight.dtype == np.int8
    np.testing.assert_array_equal(layer.weight, KERNELS)


@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_are_read_as_outputs_by_inputs(transposed: bool) -> None:
    weight = dequantized(MATRIX if transposed else np.ascontiguousarray(MATRIX.T))
    (layer,) = layers_of(ops.matmul(activations(3, 4), weight, False, transposed), in_integers=1)
    np.testing.assert_array_equal(layer.weight, MATRIX)


def test_groups_and_transposed_convolutions_are_read_as_outputs_by_inputs() -> None:
    groups = KERNELS.reshape(2, 3, 4, 2, 2)
    x = activations(1, 8, 8, 8)
    (layer,) = layers_of(ops.group_convolution(x, dequantized(groups), **PADS))
    np.testing.assert_array_equal(layer.weight, KERNELS)
    assert not layer.is_depthwise
    flipped = np.ascontiguousarray(KERNELS.swapaxes(0, 1))
    (layer,) = layers_of(
        ops.convolution_backprop_data(activations(1, 4, 8, 8), dequantized(flipped), [1, 1], None)
    )
    np.testing.assert_array_equal(layer.weight, KERNELS)


@pytest.mark.parametrize(("multiplier", "depthwise"), [(1, True), (2, False)])
def test_depthwise_is_one_filter_a_channel_and_no_multiplier(multiplier: int, depthwise: bool) -> None:
    weight = np.full((4, multiplier, 1, 3, 3), 127, np.int8)
    found = layers_of(ops.group_convolution(activations(1, 4, 8, 8), dequantized(weight), **PADS))
    assert [layer.is_depthwise for layer in found] == [depthwise]
    assert Proof.of(found).is_exact is depthwise


def test_what_is_computed_in_float_or_with_uint8_weights_is_no_such_layer() -> None:
    floats = ops.parameter((1, 4, 8, 8), np.float32, name="x")
    assert layers_of(convolution(floats, dequantized(KERNELS))) == ()
    assert layers_of(convolution(activations(1, 4, 8, 8), ops.constant(KERNELS.astype(np.float32)))) == ()
    assert layers_of(convolution(activations(1, 4, 8, 8), dequantized(KERNELS.astype(np.uint8)))) == ()
    assert layers_of(convolution(quantized(floats, 65536), dequantized(KERNELS))) == ()
    assert layers_of(convolution(ops.exp(activations(1, 4, 8, 8)), dequantized(KERNELS))) == ()


def channels(value: float, *shape: int) -> Any:
    return ops.constant(np.full(shape or (1, 4, 1, 1), value, np.float32))


def normalized(x: Any) -> Any:
    gamma, beta, mean, variance = (channels(value, 4) for value in (0.5, -0.5, 0.0, 1.0))
    return ops.batch_norm_inference(x, gamma, beta, mean, variance, 1e-5)


SPACE = np.array([2, 3])
# What moves, clips or leaves integers, or becomes their zero point.
PASSES: dict[str, Callable[[Any], Any]] = {
    "Add of 0": lambda x: ops.add(x, channels(0.0)),
    "Add of a zero point": lambda x: ops.add(x, channels(-0.3)),
    "BatchNormInference": normalized,
    "Divide by 1": lambda x: ops.divide(x, channels(1.0)),
    "Einsum": lambda x: ops.einsum([x], "abcd->abdc"),
    "FakeQuantize to 16 bits": lambda x: quantized(x, 65536),
    "MaxPool": lambda x: ops.max_pool(x, [1, 1], [1, 1], [0, 0], [0, 0], [2, 2]).output(0),
    "ReduceMax": lambda x: ops.reduce_max(x, SPACE, True),
    "ReduceMin": lambda x: ops.reduce_min(x, SPACE, True),
    "Relu": lambda x: ops.relu(x),
    "Select": lambda x: ops.select(ops.constant(True), x, x),
    "Subtract from a constant": lambda x: ops.subtract(channels(0.3), x),
}


@pytest.mark.parametrize("name", PASSES)
def test_activations_are_integers_behind_what_moves_clips_or_leaves_them(name: str) -> None:
    small = KERNELS[:, :, :1, :1]
    node = convolution(PASSES[name](activations(1, 4, 8, 8)), dequantized(np.ascontiguousarray(small)))
    (layer,) = layers_of(node, in_integers=1)
    np.testing.assert_array_equal(layer.weight, small)


FLOATS: dict[str, Callable[[Any], Any]] = {
    "Elu": lambda x: ops.elu(x, 1.0),
    "Erf": ops.erf,
    "Exp": ops.exp,
    "Gelu": lambda x: ops.gelu(x, "erf"),
    "GroupNormalization": lambda x: ops.group_normalization(x, channels(1, 4), channels(0, 4), 2, 1e-5),
    "HSigmoid": ops.hsigmoid,
    "HSwish": ops.hswish,
    "HardSigmoid": lambda x: ops.hard_sigmoid(x, np.float32(0.2), np.float32(0.5)),
    "Log": ops.log,
    "LogSoftmax": lambda x: ops.log_softmax(x, 1),
    "MVN": lambda x: ops.mvn(x, SPACE, True, 1e-5, "inside_sqrt"),
    "Mish": ops.mish,
    "NormalizeL2": lambda x: ops.normalize_l2(x, np.array([1]), 1e-5, "add"),
    "Selu": lambda x: ops.selu(x, np.float32(1.6), np.float32(1.05)),
    "Sigmoid": ops.sigmoid,
    "SoftPlus": ops.softplus,
    "Softmax": lambda x: ops.softmax(x, 1),
    "Sqrt": ops.sqrt,
    "Swish": lambda x: ops.swish(x),
    "Tanh": ops.tanh,
}


@pytest.mark.parametrize("name", sorted(_STAYS_FLOAT - _LAYERS - {"ShapeOf"}))
def test_layers_behind_what_stays_float_are_computed_in_float(name: str) -> None:
    behind = convolution(FLOATS[name](activations(1, 4, 8, 8)), dequantized(KERNELS))
    assert layers_of(behind, in_integers=0) == ()


def test_a_layer_behind_a_layer_in_integers_is_computed_in_float() -> None:
    first = convolution(activations(1, 4, 8, 8), dequantized(KERNELS[:4].copy()))
    first.set_friendly_name("the first")
    (layer,) = layers_of(convolution(first, dequantized(KERNELS)), in_integers=1)
    assert layer.name == "the first"


def test_nodes_of_one_name_are_not_one_node() -> None:
    floats = ops.relu(ops.parameter((1, 2, 8, 8), np.float32, name="y"))
    integers = ops.relu(activations(1, 2, 8, 8))
    for node in (floats, integers):
        node.set_friendly_name("twice")
    for joined in ([integers, floats], [floats, integers]):
        assert len(layers_of(convolution(ops.concat(joined, 1), dequantized(KERNELS)))) == 1


def test_operators_that_are_not_read_are_never_exact_where_they_read_int8_weights() -> None:
    x, weight = activations(1, 4, 8, 8), dequantized(KERNELS)
    found = layers_of(ops.einsum([x, dequantized(MATRIX)], "abcd,eb->aecd"), in_integers=1)
    assert Proof.of(found).unread == ("the layer",)
    offsets = ops.constant(np.zeros((1, 8, 7, 7), np.float32))
    deformable = ops.deformable_convolution(x, offsets, weight, [1, 1], [0, 0], [0, 0], [1, 1])
    assert Proof.of(layers_of(deformable, in_integers=0)).unread == ("the layer",)
    assert layers_of(ops.add(x, dequantized(KERNELS[:1, :, :1, :1].copy())), in_integers=0) == ()


def test_weights_that_cannot_be_read_are_never_exact() -> None:
    dynamic = quantized(ops.parameter((4, 5), np.float32, name="w"))
    proof = Proof.of(layers_of(ops.matmul(activations(3, 4), dynamic, False, False)))
    assert proof.unread == ("the layer",)
    assert not proof.is_exact
    low, high = np.float32(-1.003), np.float32(2.0)  # 0 is no integer of that range
    floats = ops.constant(KERNELS.astype(np.float32) / 48)
    skewed = ops.fake_quantize(floats, low, high, low, high, 256)
    assert Proof.of(layers_of(convolution(activations(1, 4, 8, 8), skewed))).unread == ("the layer",)


@pytest.mark.parametrize(("first", "second", "exact"), [(100, 28, True), (100, 29, False), (100, -100, True)])
def test_one_planted_pair_is_named(tmp_path: Path, first: int, second: int, exact: bool) -> None:
    weight = np.zeros((6, 4, 2, 2), np.int8)
    weight[3, 2:4, 1, 0] = first, second
    node = convolution(activations(1, 4, 8, 8), dequantized(weight))
    path = tmp_path / "model.xml"
    openvino.save_model(model_of(node), path, compress_to_fp16=False)
    proof = prove("openvino", path)
    assert proof is not None
    assert proof.is_exact is exact
    if not exact:
        assert proof.overflowing == "the layer (|w1| + |w2| = 129)"
