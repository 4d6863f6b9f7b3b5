"""What a detector is built from, as data: a part of a training configuration and of every checkpoint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgedet.spec import InputSpec, SsdPriors, Value


class BackboneConfig(Value):
    """A timm backbone through `features_only`; `out_strides` are the feature maps that the head reads."""

    name: str = "mobilenetv2_100"
    out_strides: tuple[Annotated[int, Field(gt=0)], ...] = Field(default=(16, 32), min_length=1)

    @model_validator(mode="after")
    def _strides_ascend(self) -> BackboneConfig:
        if list(self.out_strides) != sorted(set(self.out_strides)):
            raise ValueError(f"out_strides must ascend without repeats, got {list(self.out_strides)}")
        return self


class SsdLiteConfig(Value):
    """SSDLite: depthwise-separable extra layers and predictors (MobileNetV2, CVPR 2018, section 6.2).

    `extra_channels` adds one feature map of half the size each; `scales` has one more entry than there are
    maps. `aspect_ratios` is one list for all maps, or one list for each map.
    """

    type: Literal["ssdlite"] = "ssdlite"
    extra_channels: tuple[Annotated[int, Field(gt=0)], ...] = (512, 256, 256, 128)
    scales: tuple[float, ...] = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)
    aspect_ratios: tuple[float, ...] | tuple[tuple[float, ...], ...] = (2.0, 3.0)
    variances: tuple[float, float] = (0.1, 0.2)


class DetectorConfig(Value):
    """Everything that fixes a detector's architecture and its pre- and post-processing."""

    name: str
    labels: tuple[str, ...] = Field(min_length=1)
    input: InputSpec
    backbone: BackboneConfig = BackboneConfig()
    head: SsdLiteConfig = SsdLiteConfig()
    score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.4
    iou_threshold: Annotated[float, Field(ge=0, le=1)] = 0.45
    max_detections: Annotated[int, Field(gt=0)] = 100

    @model_validator(mode="after")
    def _priors_are_valid(self) -> DetectorConfig:
        _ = self.priors
        return self

    @property
    def priors(self) -> SsdPriors:
        """The default boxes: every stride of the backbone, then a map of half the size for each extra layer.

        Sizes are rounded up, which is what 3x3 convolutions of stride 2 with a padding of 1 give.
        """
        height, width = self.input.size_hw
        maps = [(-(-height // stride), -(-width // stride)) for stride in self.backbone.out_strides]
        for _ in self.head.extra_channels:
            maps.append(((maps[-1][0] + 1) // 2, (maps[-1][1] + 1) // 2))
        ratios: list[tuple[float, ...]] = []
        shared = [ratio for ratio in self.head.aspect_ratios if isinstance(ratio, float)]
        for entry in self.head.aspect_ratios:
            if not isinstance(entry, float):
                ratios.append(entry)
        return SsdPriors(
            feature_maps_hw=tuple(maps),
            scales=self.head.scales,
            aspect_ratios=tuple(ratios) if ratios else (tuple(shared),) * len(maps),
        )
