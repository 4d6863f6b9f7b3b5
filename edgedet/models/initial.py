"""Weights to start training from: a detector's, a backbone's, torchvision's folded MobileNetV2."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from edgedet.errors import CheckpointError
from edgedet.models.batchnorm import ConvNorm, unfold_batch_norm
from edgedet.models.checkpoint import load_state, read_state
from edgedet.models.detector import Detector

# Inverted residuals of MobileNetV2, table 2: how many blocks each stage of timm's network has.
_MOBILENETV2_BLOCKS = (1, 2, 3, 4, 3, 3, 1)
_CLASSIFIER = re.compile(r"^(classifier|fc|head|conv_head|bn2|norm_head)\.")


def load_initial_weights(detector: Detector, path: Path, images: Callable[[], Tensor]) -> str:
    """Load what to start training from.

    Args:
        detector: What is to be trained.
        path: A detector checkpoint whose backbone, and where it fits whose head, are taken; weights of the
            backbone under timm's names; or torchvision's MobileNetV2 with batch normalisation folded.
        images: Gives a batch of real images, for folded weights, whose statistics are not in the file.

    Returns:
        What was loaded, in words.

    Raises:
        CheckpointError: The file cannot be read or fits neither.
    """
    state = read_state(path)
    if "features.0.0.bias" in state:
        unfold_batch_norm(detector.backbone, _torchvision_mobilenetv2(detector), state, images())
        return "backbone, batch normalisation re-inserted"
    if any(key.startswith("backbone.") for key in state):
        load_state(detector.backbone, _below("backbone.", state), source=path)
        head = _below("head.", state)
        if _fits(detector.head, head):
            load_state(detector.head, head, source=path)
            return "backbone and head"
        return "backbone; the head has other shapes and starts anew"
    own = detector.backbone.state_dict()
    kept = {key: value for key, value in state.items() if key in own or not _CLASSIFIER.match(key)}
    load_state(detector.backbone, kept, source=path)
    return "backbone"


def _below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _fits(module: nn.Module, state: dict[str, Tensor]) -> bool:
    own = module.state_dict()
    return own.keys() == state.keys() and all(own[key].shape == state[key].shape for key in own)


def _torchvision_mobilenetv2(detector: Detector) -> list[ConvNorm]:
    """Names of MobileNetV2's layers in timm beside those in torchvision."""
    if not detector.config.backbone.name.startswith("mobilenetv2_"):
        raise CheckpointError(
            "these weights are torchvision's MobileNetV2",
            got=f"a detector with backbone {detector.config.backbone.name!r}",
            expected="mobilenetv2_100",
            fix="set detector.backbone.name to mobilenetv2_100, or give weights of that backbone",
        )
    pairs = [ConvNorm("conv_stem", "bn1", "features.0.0")]
    names = [f"blocks.{stage}.{i}" for stage, blocks in enumerate(_MOBILENETV2_BLOCKS) for i in range(blocks)]
    for position, block in enumerate(names, start=1):
        feature = f"features.{position}.conv"
        layers = [("conv_pw", "0.0"), ("conv_dw", "1.0"), ("conv_pwl", "2")]
        if position == 1:  # the first block does not expand
            layers = [("conv_dw", "0.0"), ("conv_pw", "1")]
        pairs += [
            ConvNorm(f"{block}.{layer}", f"{block}.bn{number}", f"{feature}.{key}")
            for number, (layer, key) in enumerate(layers, start=1)
        ]
    return [pair for pair in pairs if _has(detector.backbone, pair.conv)]


def _has(network: nn.Module, name: str) -> bool:
    return any(found == name for found, _ in network.named_modules())
