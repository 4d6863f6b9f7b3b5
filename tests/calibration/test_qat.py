from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from edgedet.data import open_dataset
from edgedet.data.synthetic import LABELS
from edgedet.models.capture import capture
from edgedet.models.config import BackboneConfig, DetectorConfig, SsdLiteConfig
from edgedet.models.detector import Detector, build_detector
from edgedet.preprocess import preprocess
from edgedet.spec import InputSpec
from edgedet_calibration.encodings import ENCODINGS, ONNX_RUNTIME
from edgedet_calibration.qat import LearnedRange, QuantizedDetector, _FakeQuantize, quantized_detector
from edgedet_calibration.quantize import quantize
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import Stats

# Clamps; hard-swish and gates of squeeze-and-excite; hard-swish that a residual reads; concatenations;
# sigmoid. The last three are for slow tests.
BACKBONES = (
    "mobilenetv2_035",
    "mobilenetv3_small_050",
    pytest.param("mobilenetv3_large_075", marks=pytest.mark.slow),
    pytest.param("ghostnet_050", marks=pytest.mark.slow),
    pytest.param("semnasnet_075", marks=pytest.mark.slow),
)


def snr_db(expected: torch.Tensor, found: torch.Tensor) -> float:
    return float(10 * torch.log10(expected.square().sum() / (found - expected).square().sum()))


@pytest.fixture(scope="module", params=BACKBONES)
def detector(request: pytest.FixtureRequest) -> Detector:
    """Fresh weights, with batch normalisation that does something."""
    torch.manual_seed(0)
    config = DetectorConfig(
        name="small",
        labels=LABELS,
        input=InputSpec(size_hw=(96, 96)),
        backbone=BackboneConfig(name=request.param, out_strides=(16, 32)),
        head=SsdLiteConfig(extra_channels=(), scales=(0.1, 0.4, 0.9)),
    )
    built = build_detector(config).eval()
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return built


@pytest.fixture(scope="module")
def images(detector: Detector) -> torch.Tensor:
    dataset = open_dataset("builtin", split="test")
    found = [preprocess(dataset[i].image_bgr, detector.config.input)[0] for i in range(6)]
    return torch.cat([torch.from_numpy(image) for image in found])


@pytest.fixture(scope="module")
def quantized(detector: Detector) -> QuantizedDetector:
    return quantized_detector(copy.deepcopy(detector), open_dataset("builtin", split="val"), 4).eval()


def exported(quantized: QuantizedDetector, encoding: str) -> torch.fx.GraphModule:
    """What is exported from its checkpoint."""
    captured = capture(Detector(quantized.config, quantized.backbone, quantized.head).eval())
    stats = Stats.learned("", captured.spec.input, quantized.learned_ranges())
    return quantize(captured, stats, Recipe().learned(pair_safe=True), ENCODINGS[encoding])


@torch.no_grad()
def test_it_computes_what_its_artifacts_will(
    detector: Detector, quantized: QuantizedDetector, images: torch.Tensor
) -> None:
    reference = exported(quantized, "onnxruntime")
    equal = []
    for position, image in enumerate(images.split(1)):
        ahead = []
        for expected, found, plain in zip(reference(image), quantized(images), detector(images), strict=True):
            beside_float = snr_db(plain[position], found[position])
            ahead.append(snr_db(expected[0], found[position]) > min(30, beside_float + 10))
        equal.append(all(ahead))
    # Some are equal to the bit. In others a value on the edge of a step falls the other way and spreads.
    assert any(equal)


def test_every_encoding_finds_all_its_ranges_among_the_learned(
    detector: Detector, quantized: QuantizedDetector, images: torch.Tensor
) -> None:
    plain = detector(images[:1])
    for encoding in ENCODINGS:
        with torch.no_grad():
            found = exported(quantized, encoding)(images[:1])
        assert all(snr_db(a, b) > 5 for a, b in zip(plain, found, strict=True))


def test_all_of_the_detector_and_its_ranges_are_trained_and_nothing_else(
    detector: Detector, quantized: QuantizedDetector, images: torch.Tensor
) -> None:
    trained = copy.deepcopy(quantized)
    sum(output.square().mean() for output in trained(images)).backward()
    without = {name for name, p in trained.named_parameters() if p.grad is None}
    float_copy = copy.deepcopy(detector)
    sum(output.square().mean() for output in float_copy(images)).backward()
    assert without == {name for name, p in float_copy.named_parameters() if p.grad is None}
    own = {name for name, _ in trained.named_parameters() if not name.startswith("ranges.")}
    assert own == {name for name, _ in detector.named_parameters()}
    assert all(p.grad is None for p in quantized.parameters()), "a copy shares nothing with its original"


def test_gradients_of_the_weights_are_those_of_the_float_detector(
    detector: Detector, quantized: QuantizedDetector, images: torch.Tensor
) -> None:
    copies = [copy.deepcopy(m).requires_grad_() for m in (detector, quantized)]
    for module in copies:
        sum(output.square().mean() for output in module(images)).backward()
    name = "head.class_predictors.0.pointwise.weight"
    exact, through = (module.get_parameter(name).grad for module in copies)
    assert nn.functional.cosine_similarity(exact.flatten(), through.flatten(), dim=0) > 0.95


def test_statistics_of_batch_normalisation_stay(quantized: QuantizedDetector, images: torch.Tensor) -> None:
    trained = copy.deepcopy(quantized).train()
    before = {name: value.clone() for name, value in trained.named_buffers()}
    trained(images)
    assert all(torch.equal(value, before[name]) for name, value in trained.named_buffers())


@pytest.mark.parametrize("factor", [0.3, 4.0], ids=["too narrow", "too wide"])
def test_learned_ranges_close_in_on_the_values(factor: float) -> None:
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    learned = LearnedRange(factor * float(values.min()), factor * float(values.max()))
    optimizer = torch.optim.Adam(learned.parameters(), lr=0.02)
    errors = []
    for _ in range(150):
        error = (_FakeQuantize.apply(values, *learned()) - values).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(float(error))
    assert errors[-1] < 0.35 * errors[0]
    low, high = learned()
    assert 0.6 * values.max() < high < 1.5 * values.max()
    assert 0.6 * values.min() > low > 1.5 * values.min()


def test_values_outside_a_range_pull_its_end_and_get_no_gradient_themselves() -> None:
    values = torch.tensor([-3.0, 0.1, 5.0, 6.0], requires_grad=True)
    low, high = (torch.tensor(end, requires_grad=True) for end in (-1.0, 2.0))
    weights = torch.tensor([1.0, 0.0, 10.0, 100.0])
    (_FakeQuantize.apply(values, low, high) * weights).sum().backward()
    steps = ONNX_RUNTIME.quant_max - ONNX_RUNTIME.quant_min
    length = (len(values) * steps) ** -0.5
    assert values.grad.tolist() == [0.0, 0.0, 0.0, 0.0]
    assert high.grad == pytest.approx(110 * length)
    assert low.grad == pytest.approx(1 * length)
