from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from edgedet.decode.ssd import priors_cxcywh
from edgedet.errors import ConfigError, UsageError
from edgedet.models.config import BackboneConfig, DetectorConfig, SsdLiteConfig
from edgedet.models.detector import Detector, build_detector
from edgedet.models.ssdlite import SsdLiteHead
from edgedet.models.zoo import ZOO, zoo_config
from edgedet.spec import InputSpec


def small(name: str, **changes) -> DetectorConfig:
    values = {
        "name": "small",
        "labels": ("a", "b", "c"),
        "input": InputSpec(size_hw=(96, 128)),
        "backbone": BackboneConfig(name=name, out_strides=(16, 32)),
        "head": SsdLiteConfig(extra_channels=(32,), scales=(0.2, 0.4, 0.6, 0.9)),
    }
    return DetectorConfig(**{**values, **changes})


def settled(detector: Detector, images: torch.Tensor) -> Detector:
    """With statistics of real activations, so that a fault anywhere shows in the outputs."""
    with torch.no_grad():
        for _ in range(3):
            detector.train()(images)
    return detector.eval()


@pytest.mark.parametrize(
    "backbone", ["mobilenetv2_100", "ghostnet_100", "mnasnet_100", "mobilenetv4_conv_small"]
)
def test_a_detector_exports_without_graph_breaks_to_the_same_numbers(backbone: str):
    detector = build_detector(small(backbone))
    images = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    settled(detector, images)
    program = torch.export.export(detector, (images[:1],))
    with torch.no_grad():
        expected, found = detector(images[:1]), program.module()(images[:1])
    for output, a, b in zip(detector.spec().outputs, expected, found, strict=True):
        assert tuple(a.shape) == output.shape
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5)
        assert a.std() > 1e-4


def test_predictions_are_in_the_order_of_the_priors():
    config = small("mobilenetv2_100", head=SsdLiteConfig(extra_channels=(), scales=(0.2, 0.5, 0.9)))
    head = SsdLiteHead(config, (8, 8)).eval()
    priors = priors_cxcywh(config.priors, config.input.size_hw)
    for level, (rows, columns) in enumerate(config.priors.feature_maps_hw):
        head.box_predictors[level].depthwise.conv.weight.data.zero_()[:, :, 1, 1] = 1.0
        stride_y, stride_x = 96 / rows, 128 / columns
        for row, column in ((0, 0), (rows - 1, 1), (1, columns - 1)):
            maps = [torch.zeros(1, 8, *hw) for hw in config.priors.feature_maps_hw]
            silent = head(maps)[0]
            maps[level][0, :, row, column] = 1.0
            changed = (head(maps)[0] != silent)[0].any(dim=1).numpy()
            centres = priors[changed][:, :2]
            assert changed.sum() == config.priors.per_cell[level]
            assert (centres == [(column + 0.5) * stride_x, (row + 0.5) * stride_y]).all()


def test_channels_of_a_predictor_are_prior_by_prior():
    config = small("mobilenetv2_100", head=SsdLiteConfig(extra_channels=(), scales=(0.2, 0.5, 0.9)))
    head = SsdLiteHead(config, (8, 8)).eval()
    values = torch.arange(config.priors.per_cell[0] * 4, dtype=torch.float32)
    head.box_predictors[0].pointwise.weight.data.zero_()
    head.box_predictors[0].pointwise.bias.data.copy_(values)
    offsets = head([torch.zeros(1, 8, *hw) for hw in config.priors.feature_maps_hw])[0][0]
    cell = config.priors.per_cell[0]
    assert torch.equal(offsets[:cell], values.view(cell, 4))
    assert torch.equal(offsets[cell : 2 * cell], values.view(cell, 4))


@pytest.mark.parametrize("size_hw", [(96, 96), (100, 90), (65, 97)])
def test_the_maps_of_odd_inputs_are_where_the_priors_are(size_hw):
    config = small("mobilenetv2_035", input=InputSpec(size_hw=size_hw))
    detector = build_detector(config).eval()
    offsets, _ = detector(torch.zeros(1, 3, *size_hw))
    assert offsets.shape[1] == config.priors.count


def test_every_map_can_have_its_own_ratios():
    head = SsdLiteConfig(
        extra_channels=(32,), scales=(0.2, 0.4, 0.6, 0.9), aspect_ratios=((2.0,), (2.0, 3.0), ())
    )
    config = small("mobilenetv2_035", head=head)
    assert config.priors.per_cell == (4, 6, 2)
    assert build_detector(config).eval()(torch.zeros(1, 3, 96, 128))[0].shape[1] == config.priors.count


def test_an_unknown_backbone_gets_suggestions():
    with pytest.raises(ConfigError, match="mobilenetv2_100"):
        build_detector(small("mobilenetv2_10"))


def test_a_stride_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ConfigError, match=r"no feature map of stride 64.*\[2, 4, 8, 16, 32\]"):
        build_detector(
            small("mobilenetv2_035", backbone=BackboneConfig(name="mobilenetv2_035", out_strides=(16, 64)))
        )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_tiny_patch16_224", "no feature map of stride 32"),
        ("swin_tiny_patch4_window7_224", "does not take"),
    ],
)
def test_a_backbone_that_cannot_serve_is_refused(name: str, reason: str):
    with pytest.raises(ConfigError, match=f"{name}.*{reason}"):
        build_detector(small(name))


@pytest.mark.parametrize("name", list(ZOO))
def test_every_detector_of_the_zoo_builds_with_the_figures_that_are_stated(name: str):
    detector = build_detector(zoo_config(name, tuple(f"c{i}" for i in range(80)))).eval()
    macs = 0

    def count(module, inputs, output):
        nonlocal macs
        macs += output.numel() * module.weight[0].numel()

    for module in detector.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        detector(torch.zeros(detector.spec().input.tensor.shape))
    assert sum(p.numel() for p in detector.parameters()) / 1e6 == pytest.approx(ZOO[name].params_m, rel=0.01)
    assert macs / 1e6 == pytest.approx(ZOO[name].macs_m, rel=0.01)


def test_the_zoo_is_in_order_and_suggests_names():
    assert list(ZOO) == sorted(ZOO)
    with pytest.raises(UsageError, match="ssdlite320_mobilenetv2"):
        zoo_config("ssdlite320_mobilnetv2", ("a",))


def test_the_zoo_is_listed_without_torch():
    code = "import sys, edgedet.models.zoo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
