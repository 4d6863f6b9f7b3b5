"""SSDLite: SSD with depthwise-separable convolutions (MobileNetV2, CVPR 2018, section 6.2).

Offsets and class scores leave as two tensors and are never concatenated with each other, so that each has
its own scale after quantization. Activations are ReLU6, whose range is known before calibration.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgedet.models.config import DetectorConfig

# Of TensorFlow's SSDLite, which torchvision's follows: statistics of small batches need the slow momentum.
_NORM_EPS, _NORM_MOMENTUM = 1e-3, 0.03
_INITIAL_STD = 0.03


class ConvNormAct(nn.Sequential):
    """Convolution, batch normalisation and ReLU6; `groups` equal to the channels makes it depthwise."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=_NORM_EPS, momentum=_NORM_MOMENTUM)
        self.act = nn.ReLU6(inplace=True)


class ExtraLayer(nn.Sequential):
    """Halves a map: pointwise to half the outputs, depthwise with stride 2, pointwise to the outputs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = max(outputs // 2, 1)
        self.reduce = ConvNormAct(inputs, hidden, kernel=1)
        self.depthwise = ConvNormAct(hidden, hidden, kernel=3, stride=2, groups=hidden)
        self.expand = ConvNormAct(hidden, outputs, kernel=1)


class Predictor(nn.Sequential):
    """Depthwise 3x3, then pointwise to `outputs` channels without activation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = ConvNormAct(inputs, inputs, kernel=3, groups=inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)


class SsdLiteHead(nn.Module):
    """Feature maps to offsets and class logits of every prior.

    Args:
        config: The detector's configuration.
        in_channels: Channels of the backbone's feature maps.
    """

    def __init__(self, config: DetectorConfig, in_channels: Sequence[int]) -> None:
        super().__init__()
        channels = [*in_channels, *config.head.extra_channels]
        per_cell = config.priors.per_cell
        self.classes = len(config.labels) + 1
        self.extras = nn.ModuleList(
            ExtraLayer(inputs, outputs)
            for inputs, outputs in zip(
                channels[len(in_channels) - 1 :], config.head.extra_channels, strict=False
            )
        )
        self.box_predictors = nn.ModuleList(
            Predictor(width, 4 * priors) for width, priors in zip(channels, per_cell, strict=True)
        )
        self.class_predictors = nn.ModuleList(
            Predictor(width, self.classes * priors) for width, priors in zip(channels, per_cell, strict=True)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=_INITIAL_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Predict.

        Args:
            features: Maps of the backbone, `[N, C, h, w]`, finest first.

        Returns:
            Box offsets `[N, P, 4]` and class logits `[N, P, classes + 1]`, index 0 the background, in the
            order of `edgedet.decode.ssd.priors_cxcywh`: map, row, column, prior of the cell.
        """
        maps = list(features)
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        offsets = [_by_prior(p(m), 4) for p, m in zip(self.box_predictors, maps, strict=True)]
        logits = [_by_prior(p(m), self.classes) for p, m in zip(self.class_predictors, maps, strict=True)]
        return torch.cat(offsets, dim=1), torch.cat(logits, dim=1)


def _by_prior(prediction: Tensor, values: int) -> Tensor:
    """`[N, priors * values, h, w]` to `[N, h * w * priors, values]`."""
    batch, channels, height, width = prediction.shape
    return prediction.permute(0, 2, 3, 1).reshape(batch, height * width * channels // values, values)
