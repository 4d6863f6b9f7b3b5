"""Backbones: any timm network that gives feature maps, asked for by stride.

timm takes longer to import than torch, and so is imported by the functions that build something: what a
checkpoint says of itself is read without it.
"""

from __future__ import annotations

import difflib
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import nn

from edgedet.errors import ConfigError
from edgedet.models.config import BackboneConfig

if TYPE_CHECKING:
    from timm.models import FeatureInfo

if find_spec("timm") is None:
    raise ModuleNotFoundError("No module named 'timm'", name="timm")


def build_backbone(config: BackboneConfig, *, pretrained: bool = False) -> tuple[nn.Module, tuple[int, ...]]:
    """Build a backbone whose forward returns one feature map for each of `config.out_strides`.

    Args:
        config: timm's name and the strides.
        pretrained: Let timm fetch its ImageNet weights, which needs a network.

    Returns:
        The module, from `[N, 3, H, W]` to a list of `[N, C, H / stride, W / stride]`, and the channels of
        each map.

    Raises:
        ConfigError: timm has no such network, or the network has no map of that stride.
    """
    import timm

    if not timm.is_model(config.name):
        close = difflib.get_close_matches(config.name, timm.list_models(), n=3)
        raise ConfigError(
            "there is no such backbone",
            got=repr(config.name),
            expected="a name from timm.list_models()" + (f", such as {', '.join(close)}" if close else ""),
            fix="correct detector.backbone.name",
        )
    indices = _indices_of_strides(config)
    network = timm.create_model(config.name, features_only=True, out_indices=indices, pretrained=pretrained)
    return network, tuple(_feature_info(network).channels())


def _feature_info(network: nn.Module) -> FeatureInfo:
    from timm.models import FeatureInfo

    info = network.feature_info
    assert isinstance(info, FeatureInfo)
    return info


def _indices_of_strides(config: BackboneConfig) -> tuple[int, ...]:
    import timm

    try:
        with torch.device("meta"):
            available = _feature_info(timm.create_model(config.name, features_only=True)).reduction()
    except (RuntimeError, AttributeError) as exc:  # timm's answer for networks without a pyramid of maps
        raise ConfigError(
            f"backbone {config.name!r} gives no feature maps",
            got=str(exc),
            expected="a network that timm can build with features_only=True",
            fix="choose a convolutional backbone; `edgedet models` lists tried ones",
        ) from exc
    missing = [stride for stride in config.out_strides if stride not in available]
    if missing:
        raise ConfigError(
            f"backbone {config.name!r} has no feature map of stride {missing[0]}",
            got=f"out_strides {list(config.out_strides)}",
            expected=f"strides among {sorted(set(available))}",
            fix="correct detector.backbone.out_strides",
        )
    # The last map of a stride is the deepest.
    return tuple(len(available) - 1 - available[::-1].index(stride) for stride in config.out_strides)
