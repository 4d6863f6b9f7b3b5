from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from edgedet.data import open_dataset
from edgedet.data.synthetic import LABELS
from edgedet.errors import BundleError
from edgedet.models.capture import Captured, capture
from edgedet.models.config import BackboneConfig, DetectorConfig, SsdLiteConfig
from edgedet.models.detector import Detector, build_detector
from edgedet.preprocess import preprocess
from edgedet.spec import InputSpec
from edgedet_calibration.equalization import (
    Factors,
    channel_ranges,
    channels_of,
    equalize,
    equalized,
    equalizing_factors,
    measured_factors,
)
from edgedet_calibration.images import CalibrationImages

_aten = torch.ops.aten


class Blocks(nn.Module):
    """What ties channels: a residual stream, ReLU, depthwise, a gate, a concatenation cut again, a clamp."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.reduce = nn.Conv2d(8, 4, 1)
        self.expand = nn.Conv2d(4, 8, 1)
        self.branch = nn.Conv2d(8, 8, 1)
        self.cheap = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.clamped = nn.Conv2d(12, 6, 1)
        self.out = nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stem = self.stem(x)
        value = torch.relu(self.depthwise(torch.relu(stem)))
        gate = torch.sigmoid(self.expand(torch.relu(self.reduce(value.mean((2, 3), keepdim=True)))))
        stream = stem + self.branch(value * gate)
        both = torch.cat([stream, self.cheap(stream)], 1)[:, :12]
        return self.out(nn.functional.relu6(self.clamped(both)))


@pytest.fixture
def blocks() -> Captured:
    torch.manual_seed(0)
    module = Blocks()
    with torch.no_grad():
        module.stem.weight.mul_(torch.logspace(-2, 2, 8).reshape(-1, 1, 1, 1))
        module.branch.weight.mul_(torch.logspace(2, -2, 8).reshape(-1, 1, 1, 1))
    graph_module = torch.export.export(module.eval(), (torch.zeros(1, 3, 8, 8),)).module(check_guards=False)
    return Captured(graph_module, None)


def images(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, 3, 8, 8, generator=generator) for _ in range(count)]


def ids_of(captured: Captured, target: object) -> list[list[int]]:
    channels = channels_of(captured.graph_module)
    nodes = [node for node in captured.graph_module.graph.nodes if node.target is target]
    return [channels.ids[node.name].tolist() for node in nodes]


def test_what_passes_a_factor_on_ties_channels_and_what_does_not_fixes_them(blocks: Captured) -> None:
    stem, depthwise, reduce, expand, branch, cheap, clamped, out = ids_of(blocks, _aten.conv2d.default)
    free = channels_of(blocks.graph_module).free
    assert stem == branch, "both sides of a residual addition"
    assert ids_of(blocks, _aten.slice.Tensor)[-1] == stem + cheap[:4], "a concatenation, cut"
    assert ids_of(blocks, _aten.mean.dim) == [depthwise]
    assert ids_of(blocks, _aten.mul.Tensor) == [depthwise], "a gate passes on what it gates"
    assert free == {*stem, *depthwise, *reduce, *cheap}
    assert not free & {*expand, *clamped, *out}, "sigmoid, ReLU6 and the output fix channels"


def test_an_equalized_graph_computes_the_same(blocks: Captured) -> None:
    factors = equalizing_factors(blocks, channel_ranges(blocks, images(4)))
    assert len(factors) == 5
    found = equalized(blocks, factors)
    for image in images(3):
        expected = blocks.graph_module(image)
        torch.testing.assert_close(found.graph_module(image), expected, rtol=1e-5, atol=1e-5)
    weights = [dict(c.graph_module.named_parameters())["stem.weight"] for c in (blocks, found)]
    assert not torch.equal(*weights), "the original stays as it was"


def test_at_full_strength_all_free_channels_have_one_range(blocks: Captured) -> None:
    before = channel_ranges(blocks, images(4))
    after = channel_ranges(equalized(blocks, equalizing_factors(blocks, before, 1.0)), images(4))
    name = "relu_1"  # behind the depthwise convolution, read by the gate and through it
    alive = before[name] > 0
    assert before[name][alive].max() / before[name][alive].min() > 20
    assert after[name][alive].max() / after[name][alive].min() == pytest.approx(1, abs=1e-3)
    assert float((after["add"] / before["add"]).log().std()) > 1, "the residual stream was scaled"


def test_less_strength_leaves_more_of_a_range_where_weights_read_it(blocks: Captured) -> None:
    ranges = channel_ranges(blocks, images(4))
    spreads = []
    for strength in (0.5, 1.0):
        after = channel_ranges(equalized(blocks, equalizing_factors(blocks, ranges, strength)), images(4))
        spreads.append(float((after["add"].max() / after["add"].min()).log()))
    before = float((ranges["add"].max() / ranges["add"].min()).log())
    assert spreads[1] < spreads[0] < before


def test_channels_that_are_never_anything_but_zero_keep_their_weights(blocks: Captured) -> None:
    parameters = dict(blocks.graph_module.named_parameters())
    with torch.no_grad():
        for name in ("depthwise.weight", "depthwise.bias"):
            parameters[name][3] = 0
    factors = equalizing_factors(blocks, channel_ranges(blocks, images(2)))
    assert factors["conv2d_1"][3] == 1
    assert all(factor > 0 for row in factors.values() for factor in row)


def test_filters_that_make_several_channels_of_one_leave_it_as_it_is() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1),
        nn.Conv2d(6, 2, 1),
    )
    graph_module = torch.export.export(module.eval(), (torch.zeros(1, 3, 8, 8),)).module(check_guards=False)
    captured = Captured(graph_module, None)
    factors = equalizing_factors(captured, channel_ranges(captured, images(2)), 1.0)
    assert set(factors) == {"conv2d_2"}
    (image,) = images(1)
    torch.testing.assert_close(equalized(captured, factors).graph_module(image), graph_module(image))


class Gated(nn.Module):
    """A gate that nothing clips."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.gate, self.out = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = self.value(x)
        return self.out(value * torch.relu(self.gate(value.mean((2, 3), keepdim=True))))


def test_a_gate_is_fixed_whatever_it_comes_from() -> None:
    graph_module = torch.export.export(Gated().eval(), (torch.zeros(1, 3, 8, 8),)).module(check_guards=False)
    value, gate, _ = ids_of(Captured(graph_module, None), _aten.conv2d.default)
    assert channels_of(graph_module).free == set(value)
    assert not set(value) & set(gate)


class Shifted(nn.Module):
    """Sums with a number and with a stored tensor, which do not grow with the channel beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)
        self.register_buffer("offset", torch.ones(1, 4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(torch.relu(self.second(torch.relu(self.first(x)) + 3.0)) + self.offset)


def test_a_sum_with_a_constant_fixes_its_channels() -> None:
    torch.manual_seed(0)
    graph_module = torch.export.export(Shifted().eval(), (torch.zeros(1, 3, 8, 8),)).module(
        check_guards=False
    )
    assert not channels_of(graph_module).free


@pytest.mark.parametrize(
    "factors", [{"conv2d_9": (2.0,)}, {"conv2d": (2.0, 2.0)}, {"conv2d_7": (2.0, 2.0)}], ids=str
)
def test_factors_of_another_graph_are_refused(blocks: Captured, factors: Factors) -> None:
    with pytest.raises(BundleError, match="channel factors are not this detector's"):
        equalized(blocks, factors)


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "ghostnet_050", "mobilenetv2_035"])
def test_detector_and_graph_are_equalized_alike(backbone: str) -> None:
    torch.manual_seed(0)
    config = DetectorConfig(
        name="small",
        labels=LABELS,
        input=InputSpec(size_hw=(96, 96)),
        backbone=BackboneConfig(name=backbone, out_strides=(16, 32)),
        head=SsdLiteConfig(extra_channels=(), scales=(0.1, 0.4, 0.9)),
    )
    detector = build_detector(config).eval()
    captured = capture(detector)
    dataset = open_dataset("builtin", split="val")
    factors = measured_factors(captured, CalibrationImages(dataset, config.input, 3))
    assert len(factors) > 3
    changed = copy.deepcopy(detector)
    equalize(changed, captured, factors)
    image = torch.from_numpy(preprocess(dataset[5].image_bgr, config.input)[0])
    _check_alike(detector, changed, captured, factors, image)


@torch.no_grad()
def _check_alike(
    detector: Detector, changed: Detector, captured: Captured, factors: Factors, image: torch.Tensor
) -> None:
    graph = equalized(captured, factors).graph_module
    assert any(
        not torch.equal(a, b) for a, b in zip(detector.parameters(), changed.parameters(), strict=True)
    )
    for expected, of_graph, of_detector in zip(detector(image), graph(image), changed(image), strict=True):
        scale = expected.abs().max()
        assert (of_graph - expected).abs().max() < 1e-5 * scale
        assert (of_detector - expected).abs().max() < 1e-5 * scale
