"""A detector: a backbone and a head, and the spec that says how to feed it and read it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgedet import registry
from edgedet.errors import ConfigError
from edgedet.models.backbones import build_backbone
from edgedet.models.config import DetectorConfig
from edgedet.spec import DetectorSpec, OutputSpec, Provenance, SsdDecoder


class Detector(nn.Module):
    """Images `[N, 3, H, W]` to raw outputs: box offsets `[N, P, 4]` and class logits `[N, P, C + 1]`."""

    def __init__(self, config: DetectorConfig, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets and logits of normalised images (see `edgedet.preprocess`)."""
        offsets, logits = self.head(self.backbone(images))
        return offsets, logits

    @property
    def has_pair_safe_weights(self) -> bool:
        """Whether training rounded weights at scales that are safe on x86 processors without VNNI."""
        return False

    def learned_ranges(self) -> dict[str, tuple[float, float]]:
        """Ranges that were learned in quantization-aware training, by node name of the captured detector."""
        return {}

    def spec(self, provenance: Provenance | None = None) -> DetectorSpec:
        """What a runtime's user must know of this detector."""
        config, priors = self.config, self.config.priors
        return DetectorSpec(
            name=config.name,
            input=config.input,
            outputs=(
                OutputSpec(name="box_offsets", shape=(1, priors.count, 4), role="box_offsets"),
                OutputSpec(
                    name="class_logits", shape=(1, priors.count, len(config.labels) + 1), role="class_logits"
                ),
            ),
            decoder=SsdDecoder(priors=priors, variances=config.head.variances),
            labels=config.labels,
            score_threshold=config.score_threshold,
            iou_threshold=config.iou_threshold,
            max_detections=config.max_detections,
            provenance=provenance or Provenance(),
        )


def build_detector(config: DetectorConfig, *, pretrained: bool = False) -> Detector:
    """Build a detector with fresh weights, in training mode.

    Args:
        config: What to build.
        pretrained: Let timm fetch ImageNet weights for the backbone, which needs a network.

    Raises:
        ConfigError: The backbone does not exist or does not give the maps that the priors are laid on.

    Example:
        >>> from edgedet.models.zoo import zoo_config
        >>> detector = build_detector(zoo_config("ssdlite320_mobilenetv2", labels=("cat", "dog")))
        >>> [output.shape for output in detector.spec().outputs]
        [(1, 3234, 4), (1, 3234, 3)]
    """
    backbone, channels = build_backbone(config.backbone, pretrained=pretrained)
    _check_maps(config, backbone)
    head = registry.HEADS.load(config.head.type)(config, channels)
    return Detector(config, backbone, head)


def _check_maps(config: DetectorConfig, backbone: nn.Module) -> None:
    """Run the backbone once: a map of another size would silently shift every box."""
    try:
        with torch.no_grad():
            features = backbone.eval()(torch.zeros(1, 3, *config.input.size_hw))
    except (AssertionError, RuntimeError, ValueError) as exc:  # timm's answers for networks of one input size
        raise ConfigError(
            f"backbone {config.backbone.name!r} does not take this input",
            got=f"{exc} at an input of {list(config.input.size_hw)}",
            expected="a network for inputs of any size, or the size that it was made for",
            fix="change detector.input.size_hw or detector.backbone.name",
        ) from exc
    backbone.train()
    found = [tuple(feature.shape[2:]) for feature in features]
    expected = list(config.priors.feature_maps_hw[: len(found)])
    if found != expected:
        raise ConfigError(
            f"the maps of backbone {config.backbone.name!r} are not where the priors are",
            got=f"maps {found} at an input of {list(config.input.size_hw)}",
            expected=f"maps {expected}",
            fix="make input.size_hw a multiple of the largest stride",
        )
