"""The integers of OpenVINO models are read behind every way to write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedet.proof import Proof, prove

openvino = pytest.importorskip("openvino", reason="the openvino extra is not installed")

from openvino import opset13 as ops  # noqa: E402

from edgedet_runtimes.ov_integer_layers import integer_layers  # noqa: E402

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
    scale = ops.constant(np.full((len(integers), *[1] * (integers.ndim - 1)), 0.1, np.float32))
    return ops.multiply(scale, floats) if scale_first else ops.multiply(floats, scale)


def convolution(x: Any, weight: Any) -> Any:
    return ops.convolution(x, weight, **PADS)


def layers_of(node: Any) -> tuple[Any, ...]:
    node.set_friendly_name("the layer")
    parameters = [one for one in walk(node) if one.get_type_name() == "Parameter"]
    return integer_layers(openvino.Model([node], parameters, "m"))


def walk(node: Any) -> list[Any]:
    return [node, *(found for port in node.input_values() for found in walk(port.get_node()))]


@pytest.mark.parametrize("options", [{}, {"zero_point": True}, {"scale_first": True}])
def test_integers_behind_a_dequantization_are_read(options: dict[str, bool]) -> None:
    (layer,) = layers_of(convolution(activations(1, 4, 8, 8), dequantized(KERNELS, **options)))
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
    (layer,) = layers_of(convolution(activations(1, 4, 8, 8), weight))
    assert layer.weight.dtype == np.int8
    np.testing.assert_array_equal(layer.weight, KERNELS)


@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_are_read_as_outputs_by_inputs(transposed: bool) -> None:
    weight = dequantized(MATRIX if transposed else np.ascontiguousarray(MATRIX.T))
    (layer,) = layers_of(ops.matmul(activations(3, 4), weight, False, transposed))
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


def test_activations_are_integers_behind_what_moves_or_clips_them() -> None:
    pooled = ops.max_pool(activations(1, 4, 8, 8), [1, 1], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
    assert len(layers_of(convolution(ops.relu(pooled), dequantized(KERNELS)))) == 1


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
    node.set_friendly_name("the layer")
    parameters = [one for one in walk(node) if one.get_type_name() == "Parameter"]
    path = tmp_path / "model.xml"
    openvino.save_model(openvino.Model([node], parameters, "m"), path, compress_to_fp16=False)
    proof = prove("openvino", path)
    assert proof is not None
    assert proof.is_exact is exact
    if not exact:
        assert proof.overflowing == "the layer (|w1| + |w2| = 129)"
