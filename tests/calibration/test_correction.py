"""Corrected weights and biases bring a quantized detector nearer to float, and the means of channels back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from edgedet.data import LabelledImage, open_dataset
from edgedet.errors import BundleError, DataError
from edgedet.models.capture import Captured
from edgedet.preprocess import preprocess
from edgedet.saturation import IntegerLayer, overflows
from edgedet_calibration import correction
from edgedet_calibration.calibrate import calibrate
from edgedet_calibration.correction import with_corrections
from edgedet_calibration.encodings import ENCODINGS, Encoding
from edgedet_calibration.images import CalibrationImages, calibration_images
from edgedet_calibration.quantize import quantize
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import Corrections, Stats
from edgedet_calibration.walk import Walk
from edgedet_calibration.weight_steps import packed, unpacked


@pytest.fixture(scope="module")
def correcting(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"bias_correction": True})


@pytest.fixture(scope="module")
def tensors(captured: Captured) -> list[torch.Tensor]:
    images = open_dataset("builtin", split="test")
    return [torch.from_numpy(preprocess(images[i].image_bgr, captured.spec.input)[0]) for i in range(6)]


def noise_db(captured: Captured, quantized: torch.fx.GraphModule, tensors: list[torch.Tensor]) -> float:
    """Signal to noise of the box offsets over images that were not calibrated on."""
    with torch.inference_mode():
        wanted = torch.cat([captured.graph_module(tensor)[0] for tensor in tensors])
        found = torch.cat([quantized(tensor)[0] for tensor in tensors])
    return float(10 * torch.log10(wanted.square().sum() / (wanted - found).square().sum()))


def channel_means(
    captured: Captured, names: Iterable[str], images: list[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Mean of every channel of some nodes of a graph, over images and positions."""
    walk, wanted, means = Walk(captured.graph_module, images), set(names), {}
    with torch.inference_mode():
        for node in walk.nodes[:-1]:
            values = walk.run(node)
            walk.keep(node, values)
            if node.name in wanted:
                means[node.name] = torch.cat(values).double().mean((0, 2, 3))
    return means


def integer_weights(quantized: torch.fx.GraphModule) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Integers and scales of every convolution, by node name."""
    found = {}
    for node in quantized.graph.nodes:
        if node.target is torch.ops.aten.conv2d.default:
            integers, scales = (quantized.get_buffer(str(read.target)) for read in node.args[1].args[:2])
            found[node.name] = integers, scales
    return found


@pytest.mark.parametrize("encoding", [ENCODINGS["onnxruntime"], ENCODINGS["openvino"]], ids=lambda e: e.name)
def test_channels_have_their_means_again_and_outputs_come_nearer(
    captured: Captured,
    stats: Stats,
    recipe: Recipe,
    correcting: Recipe,
    tensors: list[torch.Tensor],
    calibration: CalibrationImages,
    encoding: Encoding,
) -> None:
    corrected = with_corrections(captured, stats, correcting, [encoding], calibration)
    (found,) = corrected.corrections.values()
    shifts = found.bias_shifts
    plain = quantize(captured, stats, recipe, encoding)
    better = quantize(captured, corrected, correcting, encoding)
    seen = calibration.again()
    wanted = channel_means(captured, shifts, seen)

    def distance(graph_module: torch.fx.GraphModule) -> float:
        found = channel_means(Captured(graph_module, captured.spec), shifts, seen)
        return sum(float((found[name] - wanted[name]).square().sum()) for name in shifts)

    assert distance(better) < 0.3 * distance(plain)
    assert noise_db(captured, better, tensors) > noise_db(captured, plain, tensors) + 0.3


@pytest.mark.parametrize(
    "name",
    [
        "onnxruntime",
        "tflite-16x8",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("openvino", "tensorrt")),
    ],
)
def test_rounding_by_least_squares_comes_nearer_and_keeps_every_scale(
    captured: Captured,
    stats: Stats,
    correcting: Recipe,
    tensors: list[torch.Tensor],
    calibration: CalibrationImages,
    name: str,
) -> None:
    encoding = ENCODINGS[name]
    noise, weights = [], []
    for rounding in ("nearest", "least_squares"):
        recipe = correcting.model_copy(update={"rounding": rounding, "pair_safe": False})
        corrected = with_corrections(captured, stats, recipe, [encoding], calibration)
        quantized = quantize(captured, corrected, recipe, encoding)
        noise.append(noise_db(captured, quantized, tensors))
        weights.append(integer_weights(quantized))
    assert noise[1] > noise[0] + (0.02 if name == "tflite-16x8" else 0.3)
    assert weights[0].keys() == weights[1].keys()
    changed = []
    for layer, (integers, scales) in weights[0].items():
        assert torch.equal(scales, weights[1][layer][1])
        changed.append(float((integers != weights[1][layer][0]).float().mean()))
    assert sum(share > 0 for share in changed) > len(changed) / 2
    assert sum(changed) / len(changed) < 0.7  # rounded again, not replaced


@pytest.mark.parametrize(
    "name", ["onnxruntime", *(pytest.param(n, marks=pytest.mark.slow) for n in ("openvino", "tflite"))]
)
def test_weights_that_no_sum_can_overflow_with_cost_less_than_half_a_decibel(
    captured: Captured,
    stats: Stats,
    correcting: Recipe,
    tensors: list[torch.Tensor],
    calibration: CalibrationImages,
    name: str,
) -> None:
    encoding, noise = ENCODINGS[name], []
    for pair_safe in (False, True):
        recipe = correcting.model_copy(update={"rounding": "least_squares", "pair_safe": pair_safe})
        corrected = with_corrections(captured, stats, recipe, [encoding], calibration)
        quantized = quantize(captured, corrected, recipe, encoding)
        noise.append(noise_db(captured, quantized, tensors))
        layers = [
            IntegerLayer(layer, integers.numpy(), is_depthwise=integers.shape[1] == 1)
            for layer, (integers, _) in integer_weights(quantized).items()
        ]
        assert (overflows(layers) == ()) == pair_safe
    assert noise[1] > noise[0] - 0.5


def test_corrections_that_would_let_a_sum_overflow_are_refused(
    captured: Captured, stats: Stats, correcting: Recipe, calibration: CalibrationImages
) -> None:
    encoding = ENCODINGS["onnxruntime"]
    recipe = correcting.model_copy(update={"rounding": "least_squares"})
    corrected = with_corrections(captured, stats, recipe, [encoding], calibration)
    ((arithmetic, found),) = corrected.corrections.items()
    weights = integer_weights(quantize(captured, corrected, recipe, encoding))
    name = next(n for n, (integers, _) in weights.items() if integers.shape[1] % 2 == 0)
    integers = weights[name][0]
    steps = unpacked(found.weight_steps[name], integers.shape, name).clone()
    # Both to 65: no weight leaves its own range.
    for column in (0, 1):
        steps[0, column, 0, 0] += 65 - integers[0, column, 0, 0]
    changed = found.model_copy(update={"weight_steps": {**found.weight_steps, name: packed(steps)}})
    broken = corrected.model_copy(update={"corrections": {arithmetic: changed}})
    with pytest.raises(BundleError, match=f"do not fit {name}; got neighbours that lead beyond 128"):
        quantize(captured, broken, recipe, encoding)


def test_layers_that_read_too_much_are_rounded_to_nearest(
    captured: Captured,
    stats: Stats,
    correcting: Recipe,
    calibration: CalibrationImages,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoding = ENCODINGS["onnxruntime"]
    monkeypatch.setattr(correction, "LARGEST_FAN_IN", 100)
    corrected = with_corrections(captured, stats, correcting, [encoding], calibration)
    (found,) = corrected.corrections.values()
    integers = integer_weights(quantize(captured, corrected, correcting, encoding))
    for name, steps in found.weight_steps.items():
        shape = integers[name][0].shape
        assert bool(unpacked(steps, shape, name).any()) <= (shape[1:].numel() <= 100), name
    assert any(shape[0].shape[1:].numel() > 100 for shape in integers.values())


def test_without_a_readable_image_nothing_is_corrected(
    captured: Captured, stats: Stats, correcting: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "photo.png").write_bytes(b"no picture")
    unreadable = CalibrationImages(open_dataset(str(tmp_path)), captured.spec.input, 6)
    with pytest.raises(DataError, match="cannot be corrected"):
        with_corrections(captured, stats, correcting, [ENCODINGS["onnxruntime"]], unreadable)


def test_encodings_that_compute_the_same_share_their_corrections(
    captured: Captured, stats: Stats, correcting: Recipe, calibration: CalibrationImages
) -> None:
    pair = [ENCODINGS["onnxruntime"], ENCODINGS["tflite"]]
    corrected = with_corrections(captured, stats, correcting, pair, calibration)
    assert list(corrected.corrections) == ["affine lowered"]
    assert Stats.model_validate_json(corrected.model_dump_json()) == corrected


def test_shifts_that_a_recipe_asks_for_and_that_are_missing_stop_the_quantization(
    captured: Captured, stats: Stats, correcting: Recipe
) -> None:
    with pytest.raises(BundleError, match="no corrections for affine lowered arithmetic"):
        quantize(captured, stats, correcting, ENCODINGS["onnxruntime"])


def test_a_recipe_can_do_without(captured: Captured, stats: Stats, recipe: Recipe) -> None:
    encoding = ENCODINGS["onnxruntime"]
    corrections = {encoding.arithmetic: Corrections(bias_shifts={"conv2d": (1e3,) * 16})}
    shifted = stats.model_copy(update={"corrections": corrections})
    image = torch.zeros(captured.spec.input.tensor.shape)
    with torch.inference_mode():
        left, right = (quantize(captured, s, recipe, encoding)(image) for s in (stats, shifted))
    assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("count", [7, 40, 100])
def test_an_image_is_decoded_once_however_often_it_is_looked_at(captured: Captured, count: int) -> None:
    dataset = open_dataset("builtin", split="val")
    read: list[int] = []

    class Counted(type(dataset)):  # type: ignore[misc]
        def __getitem__(self, index: int) -> LabelledImage:
            read.append(index)
            return super().__getitem__(index)

    dataset.__class__ = Counted
    images = CalibrationImages(dataset, captured.spec.input, count)
    again = images.again()
    all_of_them = [tensor for _, tensor, _ in images]
    assert len(images.again()) == len(again) == min(count, 32)
    assert sorted(read) == sorted(set(read))
    assert len(read) == len(all_of_them) == len(images) == min(count, len(dataset))
    assert sum(any(torch.equal(one, other) for other in all_of_them) for one in again) == len(again)
    assert [image.image_id for image in calibration_images(dataset, count)] == [
        image.image_id for image, _, _ in images
    ]


def test_calibration_gives_the_same_on_any_number_of_threads(captured: Captured, correcting: Recipe) -> None:
    recipe, before, found = (
        correcting.model_copy(update={"rounding": "least_squares"}),
        torch.get_num_threads(),
        [],
    )
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            images = CalibrationImages(open_dataset("builtin", split="val"), captured.spec.input, 2)
            stats = calibrate(captured, images, recipe)
            found.append(with_corrections(captured, stats, recipe, [ENCODINGS["onnxruntime"]], images))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]
