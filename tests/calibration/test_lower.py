"""Lowered activations compute what they did, and integer kernels can take all of them."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from edgedet.models.capture import absorb_hardsigmoid
from edgedet_calibration.encodings import TFLITE, TFLITE_16X8, QuantParams
from edgedet_calibration.lower import lower
from edgedet_calibration.placement import place

_aten = torch.ops.aten
IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 4


class SqueezeExcite(nn.Module):
    """A block of MobileNetV3: a gate over channels, hard-swish before and after it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.act = nn.Hardswish()
        self.reduce, self.expand = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.gate = nn.Hardsigmoid()
        self.project = nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(8, 5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.stem(x))
        gate = self.gate(self.expand(torch.relu(self.reduce(x.mean((2, 3), keepdim=True)))))
        return self.last(self.act(self.project(x * gate)))


class Residual(SqueezeExcite):
    """The product is added to something, which no weight can divide."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.stem(x))
        return self.last(x + self.project(x))


class Twice(SqueezeExcite):
    """One weight is used twice, and only one of the two reads a hard-swish."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.last(self.project(self.act(x)) + self.project(x))


class Squared(SqueezeExcite):
    """A product of two values that both carry the factor."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.stem(x))
        return self.last(x * x.mean((2, 3), keepdim=True))


class Product(SqueezeExcite):
    """Two deferred factors in one product."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.last(self.act(x) * self.act(self.project(x)))


class Sigmoid(SqueezeExcite):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.sigmoid(self.stem(x)))


class MovedGate(SqueezeExcite):
    """A gate whose integers a kernel copies, and which therefore shares its range."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        gate = self.gate(self.project(x))
        return self.last(x * torch.cat([gate[:, :4], gate[:, 4:]], 1))


class Silu(SqueezeExcite):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(nn.functional.silu(self.stem(x)))


def exported(module: nn.Module) -> GraphModule:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    graph_module = torch.export.export(module.eval(), (IMAGE,)).module(check_guards=False)
    absorb_hardsigmoid(graph_module)
    return torch.export.export(graph_module, (IMAGE,)).module(check_guards=False)


def targets(graph_module: GraphModule) -> Counter[object]:
    return Counter(node.target for node in graph_module.graph.nodes if node.op == "call_function")


def error(graph_module: GraphModule, reference: nn.Module) -> float:
    with torch.no_grad():
        found, expected = graph_module(IMAGE), reference(IMAGE)
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    ("module", "divisions"),
    [(SqueezeExcite, 0), (Residual, 1), (Twice, 0), (Squared, 1), (Product, 0)],
)
def test_hard_swish_becomes_integer_operators_and_computes_the_same(
    module: type[nn.Module], divisions: int
) -> None:
    float_module = module()
    graph_module = exported(float_module)
    expected = copy.deepcopy(graph_module)
    # A gate is clipped by its quantization, which is not there yet.
    lowered = lower(graph_module, lambda name: name.startswith("clamp"))
    assert error(graph_module, expected) < 1e-6
    found = targets(graph_module)
    assert found[_aten.hardswish.default] == 0
    assert sum(name.endswith("_sixth") for name in lowered.scaled) == divisions
    units = place(graph_module, constants=lowered.fixed).units
    assert {name for unit in units for name in unit.nodes} == {
        node.name for node in graph_module.graph.nodes if node.op == "call_function"
    }


@pytest.mark.parametrize("module", [SqueezeExcite, Product])
def test_the_factor_of_a_product_is_known_until_a_weight_divides_by_it(module: type[nn.Module]) -> None:
    graph_module = exported(module())
    values: dict[str, torch.Tensor] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            values[n.name] = super().run_node(n)
            return values[n.name]

    with torch.no_grad():
        Recorder(graph_module).run(IMAGE)
        before = dict(values)
        lowered = lower(graph_module, lambda name: name.startswith("clamp"))
        values.clear()
        Recorder(graph_module).run(IMAGE)
    assert {"hardswish", "hardswish_1", "mul"} <= {name for name, _ in lowered.scaled.values()}
    for name, (source, factor) in lowered.scaled.items():
        torch.testing.assert_close(values[name], factor * before[source], rtol=1e-5, atol=1e-5)
    for name, (low, high) in lowered.fixed.items():
        assert low - 1e-6 <= float(values[name].min()) <= float(values[name].max()) <= high + 1e-6


def test_a_gate_is_left_to_the_saturation_of_its_quantization() -> None:
    graph_module = exported(SqueezeExcite())
    assert targets(graph_module)[_aten.clamp.default] == 1
    lowered = lower(graph_module, lambda _: False)
    assert targets(graph_module)[_aten.clamp.default] == 0
    (gate,) = [name for name, limits in lowered.fixed.items() if limits == (0.0, 1.0)]
    (node,) = [node for node in graph_module.graph.nodes if node.name == gate]
    assert node.target is _aten.conv2d.default


def test_a_gate_in_symmetric_integers_keeps_the_half_that_they_do_not_clip() -> None:
    graph_module = exported(SqueezeExcite())
    lowered = lower(graph_module, lambda _: False, symmetric=True)
    assert targets(graph_module)[_aten.clamp.default] == 0
    (gate,) = [name for name, limits in lowered.fixed.items() if limits == (0.0, 1.0)]
    (node,) = [node for node in graph_module.graph.nodes if node.name == gate]
    assert node.target is _aten.relu.default
    assert TFLITE_16X8.params(0.0, 1.0).scale * TFLITE_16X8.quant_max == pytest.approx(1.0)


def test_a_gate_that_shares_its_range_keeps_its_clamp() -> None:
    graph_module = exported(MovedGate())
    lowered = lower(graph_module, lambda _: False)
    assert targets(graph_module)[_aten.clamp.default] == 1
    assert (0.0, 1.0) not in lowered.fixed.values()


def test_a_sigmoid_has_the_range_that_tflite_prescribes() -> None:
    lowered = lower(exported(Sigmoid()), lambda _: False)
    assert lowered.fixed == {"sigmoid": (0.0, 255 / 256)}
    assert TFLITE.params(*lowered.fixed["sigmoid"]) == QuantParams(1 / 256, -128)
    lowered = lower(exported(Sigmoid()), lambda _: False, symmetric=True)
    assert TFLITE_16X8.params(*lowered.fixed["sigmoid"]) == QuantParams(1 / 32768, 0)


def test_silu_is_a_product_with_a_sigmoid_in_the_range_that_tflite_prescribes() -> None:
    graph_module = exported(Silu())
    expected = copy.deepcopy(graph_module)
    lowered = lower(graph_module, lambda _: False)
    assert error(graph_module, expected) < 1e-6
    assert targets(graph_module)[_aten.silu.default] == 0
    assert (0.0, 255 / 256) in lowered.fixed.values()


def test_activations_that_are_to_stay_float_are_not_rewritten() -> None:
    graph_module = exported(SqueezeExcite())
    before = targets(graph_module)
    lowered = lower(graph_module, lambda name: not name.startswith("conv"))
    assert targets(graph_module) == before
    assert not lowered.fixed


class Grouped(nn.Module):
    """Convolutions of every kind of groups, one of them behind a clamp."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.grouped = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3, groups=4)
        self.depthwise = nn.Conv2d(12, 24, 3, groups=12, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.depthwise(torch.relu(self.grouped(self.dense(x))))


@pytest.mark.parametrize(
    ("kept", "products"),
    [("conv2d", 0), ("conv2d_1", 1), ("conv2d_2", 1), ("conv2d conv2d_2", 1), ("all", 0)],
)
def test_a_product_before_a_float_convolution_changes_nothing(kept: str, products: int) -> None:
    graph_module = exported(Grouped())
    expected = graph_module(IMAGE)
    lower(graph_module, lambda name: kept == "all" or name in kept.split())
    assert targets(graph_module)[_aten.mul.Tensor] == products
    assert torch.equal(graph_module(IMAGE), expected)


def test_a_hard_sigmoid_is_absorbed_only_by_a_convolution_that_nothing_else_reads() -> None:
    class Shared(SqueezeExcite):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            return self.last(x * self.gate(x))

    graph_module = exported(Shared())
    assert targets(graph_module)[_aten.hardsigmoid.default] == 1
    module = SqueezeExcite()
    graph_module = exported(module)
    assert targets(graph_module)[_aten.hardsigmoid.default] == 0
    assert error(graph_module, module) < 1e-6


def test_a_hard_sigmoid_is_absorbed_by_a_convolution_without_a_bias_too() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.hardsigmoid(self.conv(x))

    module = Bare()
    graph_module = exported(module)
    assert targets(graph_module)[_aten.hardsigmoid.default] == 0
    assert error(graph_module, module) < 1e-6


def test_where_convolutions_compute_activations_nothing_is_quantized_before_them() -> None:
    graph_module = exported(SqueezeExcite())
    units = {unit.nodes[0]: unit for unit in place(graph_module, fuses_epilogues=True).units}
    assert units["conv2d"].nodes == ("conv2d", "hardswish")
    assert [unit.kind for unit in units.values()].count("activation") == 0
