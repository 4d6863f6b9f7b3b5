"""Weights to start training from: a detector's, a backbone's, torchvision's with batch normalisation folded."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import chain, pairwise, repeat
from pathlib import Path

from torch import Tensor, nn

from edgedet.models.batchnorm import ConvNorm, unfold_batch_norm
from edgedet.models.checkpoint import load_state, read_state
from edgedet.models.detector import Detector

_CLASSIFIER = re.compile(r"^(classifier|fc|head|conv_head|bn2|norm_head)\.")


def load_initial_weights(detector: Detector, path: Path, images: Callable[[], Tensor]) -> str:
    """Load what to start training from.

    Args:
        detector: What is to be trained.
        path: A detector checkpoint whose backbone, and where it fits whose head, are taken; weights of the
            backbone under timm's names; or torchvision's MobileNetV2 or V3 with batch normalisation folded.
        images: Gives a batch of real images, for folded weights, whose statistics are not in the file.

    Returns:
        What was loaded, in words.

    Raises:
        CheckpointError: The file cannot be read or fits neither.
    """
    state = read_state(path)
    if "features.0.0.bias" in state:
        unfold_batch_norm(detector.backbone, _torchvision_layers(detector.backbone, state), state, images())
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


def _torchvision_layers(network: nn.Module, state: dict[str, Tensor]) -> list[ConvNorm]:
    """Layers of timm's network beside torchvision's names for them: both count them in the order of execution."""
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    layers.append(("", network))
    names = [
        (name, following if isinstance(norm, nn.BatchNorm2d) else None)
        for (name, conv), (following, norm) in pairwise(layers)
        if isinstance(conv, nn.Conv2d)
    ]
    keys = (key.removesuffix(".weight") for key in state if key.endswith(".weight") and state[key].ndim == 4)
    keys_in_order = sorted(
        keys, key=lambda key: [(part.isdigit() and int(part), part) for part in key.split(".")]
    )
    found = chain(keys_in_order, repeat("(nothing)"))
    return [ConvNorm(conv, norm, key) for (conv, norm), key in zip(names, found, strict=False)]
