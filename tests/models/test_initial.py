from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2, mobilenet_v3_small

from edgedet.data import read_image
from edgedet.errors import CheckpointError
from edgedet.models.checkpoint import read_state, save_checkpoint
from edgedet.models.config import BackboneConfig, DetectorConfig, SsdLiteConfig
from edgedet.models.detector import build_detector
from edgedet.models.initial import load_initial_weights
from edgedet.models.zoo import zoo_config
from edgedet.preprocess import preprocess
from edgedet.spec import InputSpec


def config_of(backbone: str) -> DetectorConfig:
    update = {
        "backbone": BackboneConfig(name=backbone, out_strides=(8, 16, 32)),
        "head": SsdLiteConfig(extra_channels=(), scales=(0.1, 0.3, 0.6, 0.9)),
    }
    return zoo_config("ssdlite320_mobilenetv2", ("a", "b")).model_copy(update=update)


CONFIG = config_of("mobilenetv2_100")


class Folded(NamedTuple):
    """Weights without batch normalisation, and torchvision's network for them.

    `last_blocks` are those after which the map has stride 8, 16, 32 and its last width.
    """

    file: str
    network: Callable[[], nn.Module]
    last_blocks: tuple[int, int, int]


FOLDED = {
    "mobilenetv2_100": Folded("mobilenet_v2_torchvision_bnfused.npz", mobilenet_v2, (6, 13, 17)),
    "mobilenetv3_small_100": Folded(
        "mobilenet_v3_small_keras_int8dequant.npz", mobilenet_v3_small, (3, 8, 12)
    ),
}


@pytest.fixture(scope="module")
def images(test_data: Path) -> torch.Tensor:
    names = sorted((test_data / "data" / "coco128").rglob("*.jpg"))[:8]
    assert names
    spec = InputSpec(size_hw=(160, 160))
    return torch.cat([torch.from_numpy(preprocess(read_image(name), spec)[0]) for name in names])


@pytest.fixture(scope="module")
def folded(test_data: Path) -> Path:
    return test_data / "weights" / "mobilenet_v2_torchvision_bnfused.npz"


def torchvision_maps(source: Folded, folded: Path, images: torch.Tensor) -> list[torch.Tensor]:
    """The same weights in torchvision's own network, its convolutions with biases and its norms gone."""
    network = source.network()
    for module in list(network.features.modules()):
        children = list(module.named_children())
        for (_, conv), (name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                conv.bias = nn.Parameter(torch.zeros(conv.out_channels))
                setattr(module, name, nn.Identity())
    network.load_state_dict(read_state(folded))
    maps, value = [], images
    with torch.no_grad():
        for index, block in enumerate(network.features):
            value = block(value)
            if index in source.last_blocks:
                maps.append(value)
    return maps


@pytest.mark.parametrize("backbone", FOLDED)
def test_batch_norm_put_back_into_folded_weights_changes_nothing(
    backbone: str, test_data: Path, images: torch.Tensor
):
    detector = build_detector(config_of(backbone)).eval()
    folded = test_data / "weights" / FOLDED[backbone].file
    expected = torchvision_maps(FOLDED[backbone], folded, images)
    load_initial_weights(detector, folded, lambda: images)
    with torch.no_grad():
        found = detector.backbone(images)
        statistics = detector.backbone.train()(images)
    for a, b, c in zip(expected, found, statistics, strict=True):
        assert (b - a).abs().max() < 2e-5 * a.abs().max()
        # the statistics are those of the batch, up to Bessel's correction, which training mode does not apply
        assert (c - a).abs().max() < 2e-4 * a.abs().max()


def test_backbone_and_head_of_a_detector_are_taken_where_they_fit(tmp_path: Path):
    source = build_detector(CONFIG)
    path = tmp_path / "source.safetensors"
    save_checkpoint(path, source)
    same = build_detector(CONFIG)
    assert load_initial_weights(same, path, pytest.fail) == "backbone and head"
    assert all(
        torch.equal(a, b)
        for a, b in zip(same.state_dict().values(), source.state_dict().values(), strict=True)
    )
    other = build_detector(CONFIG.model_copy(update={"labels": ("x", "y", "z")}))
    assert "the head has other shapes" in load_initial_weights(other, path, pytest.fail)
    assert torch.equal(other.backbone.conv_stem.weight, source.backbone.conv_stem.weight)


def test_weights_under_the_names_of_timm_load_without_their_classifier(tmp_path: Path):
    source = build_detector(CONFIG).backbone
    path = tmp_path / "timm.pth"
    torch.save({**source.state_dict(), "classifier.weight": torch.zeros(1000, 1280)}, path)
    detector = build_detector(CONFIG)
    assert load_initial_weights(detector, path, pytest.fail) == "backbone"
    assert torch.equal(detector.backbone.conv_stem.weight, source.conv_stem.weight)


@pytest.mark.parametrize("backbone", ["mobilenetv2_050", "mnasnet_100", "mobilenetv3_small_100"])
def test_folded_weights_of_another_network_are_refused(folded: Path, backbone: str):
    config = DetectorConfig(
        name="x", labels=("a",), input=InputSpec(size_hw=(320, 320)), backbone=BackboneConfig(name=backbone)
    )
    with pytest.raises(CheckpointError):
        load_initial_weights(build_detector(config), folded, lambda: torch.zeros(1, 3, 64, 64))
