"""One layer quantized alone computes what a recipe computes that keeps all others float."""

from __future__ import annotations

import pytest
import torch

from edgedet.data import open_dataset
from edgedet.data.synthetic import LABELS
from edgedet.models import build_detector
from edgedet.models.capture import Captured, capture
from edgedet.models.config import BackboneConfig, DetectorConfig, SsdLiteConfig
from edgedet.preprocess import preprocess
from edgedet.spec import InputSpec
from edgedet_calibration.collect import collect
from edgedet_calibration.encodings import ENCODINGS
from edgedet_calibration.images import CalibrationImages
from edgedet_calibration.isolation import Isolation, Layer
from edgedet_calibration.placement import place
from edgedet_calibration.quantize import quantize
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import Stats


def first_tensor(captured: Captured) -> torch.Tensor:
    image = open_dataset("builtin", split="test")[0]
    return torch.from_numpy(preprocess(image.image_bgr, captured.spec.input)[0])


def alone(recipe: Recipe, captured: Captured, layer: Layer) -> Recipe:
    """A recipe that keeps everything else float."""
    members = {layer.name, *(name for unit in layer.units for name in unit.nodes)}
    nodes = [node.name for node in captured.graph_module.graph.nodes if node.op == "call_function"]
    others = tuple(name for name in nodes if name not in members)
    return recipe.model_copy(update={"bias_correction": False, "float_layers": others})


def check_layer(
    isolation: Isolation, captured: Captured, stats: Stats, recipe: Recipe, encoding: str, layer: Layer
) -> None:
    tensor = first_tensor(captured)
    values = isolation.float_values(tensor)
    found = isolation.outputs(isolation.with_layer(values, layer)).values()
    quantized = quantize(captured, stats, alone(recipe, captured, layer), ENCODINGS[encoding])
    with torch.inference_mode():
        wanted, exact = quantized(tensor), captured.graph_module(tensor)
    for one, other, float_one in zip(wanted, found, exact, strict=True):
        noise = float((one - float_one).abs().max())
        assert noise > 0
        assert float((one - torch.from_numpy(other)).abs().max()) < 1e-3 * noise


@pytest.mark.parametrize(
    ("encoding", "names"), [("onnxruntime", ("conv2d", "conv2d_2", "add_1")), ("openvino", ("conv2d_8",))]
)
def test_a_layer_alone_computes_what_a_recipe_with_all_else_float_computes(
    captured: Captured, stats: Stats, recipe: Recipe, encoding: str, names: tuple[str, ...]
) -> None:
    isolation = Isolation(captured, stats, recipe, ENCODINGS[encoding])
    for layer in isolation.layers:
        if layer.name in names:
            check_layer(isolation, captured, stats, recipe, encoding, layer)
    assert set(names) <= {layer.name for layer in isolation.layers}


@pytest.fixture(scope="module")
def squeezing() -> Captured:
    """A detector with hard-swish and gates, whose graph is lowered for some encodings."""
    torch.manual_seed(0)
    config = DetectorConfig(
        name="small",
        labels=LABELS,
        input=InputSpec(size_hw=(96, 96)),
        backbone=BackboneConfig(name="mobilenetv3_small_050"),
        head=SsdLiteConfig(extra_channels=(32, 32), scales=(0.2, 0.4, 0.6, 0.8, 1.0)),
    )
    with torch.no_grad():
        return capture(build_detector(config))


def test_without_any_layer_a_lowered_graph_computes_the_float_outputs(
    squeezing: Captured, recipe: Recipe
) -> None:
    images = CalibrationImages(open_dataset("builtin", split="val"), squeezing.spec.input, recipe.images)
    stats = collect(squeezing, place(squeezing.graph_module), images)
    isolation = Isolation(squeezing, stats, recipe, ENCODINGS["onnxruntime"])
    tensor = first_tensor(squeezing)
    with torch.inference_mode():
        wanted = squeezing.graph_module(tensor)
    values = isolation.float_values(tensor)
    for one, other in zip(wanted, isolation.outputs(values).values(), strict=True):
        assert float((one - torch.from_numpy(other)).abs().max()) < 1e-4 * float(one.abs().max())
    layers = {layer.name: layer for layer in isolation.layers}
    assert set(layers) <= {node.name for node in squeezing.graph_module.graph.nodes}
    swish = layers["hardswish"]
    assert len(swish.units) > 1
    check_layer(isolation, squeezing, stats, recipe, "onnxruntime", swish)
