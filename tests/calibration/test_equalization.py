"""Equalized weights compute the same, and lie in ranges that one scale serves."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgedet import registry
from edgedet.bundle import open_bundle
from edgedet.data import open_dataset
from edgedet.errors import BundleError
from edgedet.models.capture import Captured, parameter_of
from edgedet.parity.compare import OutputComparison
from edgedet.preprocess import preprocess
from edgedet.spec import DetectorSpec
from edgedet_calibration.collect import collect
from edgedet_calibration.encodings import ENCODINGS
from edgedet_calibration.equalization import equalized, pairs_of, quantizable
from edgedet_calibration.placement import place
from edgedet_calibration.quantize import quantize
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.reference import References
from edgedet_calibration.stats import Stats

# The pass hands it on and looks at weights only.
SPEC = DetectorSpec.model_construct()


class Chain(nn.Module):
    """Convolution, activation, depthwise, activation, convolution, and a branch behind them."""

    def __init__(self, activation: type[nn.Module], *, branch: bool = False) -> None:
        super().__init__()
        self.expand, self.depthwise = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.project, self.last = nn.Conv2d(8, 4, 1, bias=False), nn.Conv2d(4, 6, 3, stride=2)
        self.activation, self.branch = activation(), branch

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        depthwise = self.activation(self.depthwise(self.activation(self.expand(image))))
        projected = self.project(depthwise)
        return self.last(projected), projected if self.branch else image.mean(1)


def captured_chain(model: nn.Module) -> Captured:
    example = (torch.zeros(1, 3, 16, 16),)
    return Captured(torch.export.export(model.eval(), example).module(check_guards=False), SPEC)


def uneven(model: Chain) -> Chain:
    """Channels a thousand times as large as others, as training sometimes leaves them."""
    with torch.no_grad():
        for convolution in (model.expand, model.depthwise):
            spread = torch.logspace(-1.5, 1.5, 8)
            convolution.weight.mul_(spread.reshape(-1, 1, 1, 1))
            convolution.bias.mul_(spread)
    return model


def spread(captured: Captured, name: str) -> float:
    """Largest over smallest range of the output channels of a weight."""
    node = next(n for n in captured.graph_module.graph.nodes if n.name == name)
    weight = parameter_of(captured.graph_module, node.args[1])
    assert weight is not None
    ranges = weight.abs().flatten(1).amax(1)
    return float(ranges.max() / ranges.min())


def test_what_a_network_computes_stays_the_same_and_ranges_become_alike() -> None:
    torch.manual_seed(0)
    given = captured_chain(uneven(Chain(nn.ReLU)))
    changed = equalized(given)
    assert [(pair.first, pair.second) for pair in pairs_of(given.graph_module)] == [
        ("conv2d", "conv2d_1"),
        ("conv2d_1", "conv2d_2"),
        ("conv2d_2", "conv2d_3"),
    ]
    image = torch.randn(1, 3, 16, 16)
    with torch.inference_mode():
        wanted, found = given.graph_module(image)[0], changed.graph_module(image)[0]
    assert (wanted - found).abs().max() < 1e-5 * wanted.abs().max()
    assert spread(given, "conv2d_1") > 500
    assert spread(changed, "conv2d_1") < spread(given, "conv2d_1") / 4
    assert spread(given, "conv2d_1") > 500, "the given graph is left as it was"


def test_it_is_the_same_every_time() -> None:
    torch.manual_seed(0)
    given = captured_chain(uneven(Chain(nn.ReLU)))
    first, second = (equalized(given).graph_module.state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("activation", [nn.ReLU6, nn.Hardswish, nn.SiLU])
def test_no_factor_passes_an_activation_that_is_not_homogeneous(
    activation: type[nn.Module],
) -> None:
    pairs = pairs_of(captured_chain(Chain(activation)).graph_module)
    assert [(pair.first, pair.second) for pair in pairs] == [("conv2d_2", "conv2d_3")]


def test_a_value_that_something_else_reads_is_left_alone() -> None:
    pairs = pairs_of(captured_chain(Chain(nn.ReLU, branch=True)).graph_module)
    assert "conv2d_2" not in {pair.first for pair in pairs}


def test_a_channel_of_zeros_is_left_alone() -> None:
    torch.manual_seed(0)
    model = Chain(nn.ReLU)
    with torch.no_grad():
        model.expand.weight[0], model.depthwise.weight[1] = 0, 0
    changed = equalized(captured_chain(model))
    assert all(torch.isfinite(tensor).all() for tensor in changed.graph_module.state_dict().values())


def test_a_recipe_decides() -> None:
    captured = captured_chain(Chain(nn.ReLU))
    assert quantizable(captured, Recipe()) is captured
    changed = quantizable(captured, Recipe(equalization=True))
    assert changed is not captured
    assert changed.spec is captured.spec


def noise_db(captured: Captured, recipe: Recipe, tensor: Tensor) -> float:
    """Signal to noise of the box offsets in INT8."""
    graph = quantizable(captured, recipe)
    dataset = open_dataset("builtin", split="val")
    stats = collect(graph, place(graph.graph_module), dataset, recipe)
    quantized = quantize(graph, stats, recipe, ENCODINGS["onnxruntime"])
    with torch.inference_mode():
        wanted, found = captured.graph_module(tensor)[0], quantized(tensor)[0]
    return float(10 * torch.log10(wanted.square().sum() / (wanted - found).square().sum()))


def test_channels_that_were_driven_apart_are_quantized_again_as_well_as_before(captured: Captured) -> None:
    uneven_module = copy.deepcopy(captured.graph_module)
    pair = pairs_of(uneven_module)[0]
    nodes = {node.name: node for node in uneven_module.graph.nodes}
    first, second = (parameter_of(uneven_module, nodes[n].args[1]) for n in (pair.first, pair.second))
    bias = parameter_of(uneven_module, nodes[pair.first].args[2])
    assert first is not None
    assert second is not None
    assert bias is not None
    factors = torch.logspace(-2, 2, len(first))
    with torch.no_grad():
        first.mul_(factors.reshape(-1, 1, 1, 1))
        bias.mul_(factors)
        second.div_(factors.reshape(1, -1, 1, 1))
    driven = Captured(uneven_module, captured.spec)
    image = open_dataset("builtin", split="test")[0].image_bgr
    tensor = torch.from_numpy(preprocess(image, captured.spec.input)[0])
    plain = Recipe(images=3, bias_correction=False)
    before, ruined = noise_db(captured, plain, tensor), noise_db(driven, plain, tensor)
    restored = noise_db(driven, plain.model_copy(update={"equalization": True}), tensor)
    assert ruined < before - 6
    assert restored > before - 2


def test_the_reference_of_a_bundle_is_equalized_as_its_artifact_was(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the export extra is not installed")
    from edgedet_export.exporter import ExportRequest, export_bundle

    images = open_dataset("builtin", split="val")
    recipe = Recipe(images=2, equalization=True)
    export_bundle(
        ExportRequest(
            checkpoint, tmp_path / "bundle", ("onnx",), ("int8",), calibration=images, recipe=recipe
        )
    )
    bundle = open_bundle(tmp_path / "bundle")
    artifact = bundle.artifact("ort", "int8")
    reference = References(bundle).open(artifact)
    feeds = {bundle.spec.input.name: preprocess(images[0].image_bgr, bundle.spec.input)[0]}
    comparison = OutputComparison([output.name for output in bundle.spec.outputs])
    with registry.RUNTIMES.load("ort")(bundle.path_of(artifact)) as runtime:
        comparison.add(reference.run(feeds), runtime.run(feeds))
    assert min(output.snr_db for output in comparison.differences()) > 25


def test_a_calibration_without_equalization_does_not_serve_a_recipe_with_it(
    captured: Captured, stats: Stats, recipe: Recipe
) -> None:
    with pytest.raises(BundleError, match="equalization"):
        quantize(captured, stats, recipe.model_copy(update={"equalization": True}), ENCODINGS["onnxruntime"])
