"""What a detector is built from, as data: a part of a training configuration and of every checkpoint."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edgedet.spec import InputSpec, Value


class BackboneConfig(Value):
    """A timm backbone through `features_only`; `out_strides` are the feature maps that the head reads."""

    name: str = "mobilenetv2_100"
    out_strides: tuple[int, ...] = (16, 32)


class SsdLiteConfig(Value):
    """SSDLite: depthwise-separable extra layers and predictors.

    `extra_channels` adds one feature map of half the size each; `scales` has one more entry than there are maps.
    """

    type: str = "ssdlite"
    extra_channels: tuple[int, ...] = (512, 256, 256, 128)
    scales: tuple[float, ...] = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)
    aspect_ratios: tuple[float, ...] = (2.0, 3.0)
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
