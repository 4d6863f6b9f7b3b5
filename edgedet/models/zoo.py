"""The zoo: detectors by name, as plain data, so that listing them needs no torch.

Parameters and multiply-adds are of the whole detector with 80 classes; tests recount them.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from edgedet.errors import UsageError
from edgedet.models.config import BackboneConfig, DetectorConfig, SsdLiteConfig
from edgedet.spec import InputSpec


@dataclass(frozen=True, slots=True)
class ZooEntry:
    """One detector of the zoo.

    Attributes:
        backbone: timm's name.
        size: Side of the square input in pixels.
        params_m: Parameters in millions.
        macs_m: Multiply-adds of convolutions and linear layers in millions, one image.
        summary: What it is good for.
        extra_channels: Of the head.
    """

    backbone: str
    size: int
    params_m: float
    macs_m: float
    summary: str
    extra_channels: tuple[int, ...] = (512, 256, 256, 128)


ZOO: dict[str, ZooEntry] = {
    "ssdlite256_mobilenetv2_035": ZooEntry(
        "mobilenetv2_035",
        256,
        0.56,
        77,
        "the smallest: microcontroller-class devices, quick experiments",
        (128, 96, 64, 64),
    ),
    "ssdlite320_efficientnet_lite0": ZooEntry(
        "efficientnet_lite0", 320, 4.22, 806, "no squeeze-excite, made for INT8"
    ),
    "ssdlite320_ghostnet": ZooEntry(
        "ghostnet_100", 320, 2.06, 245, "few multiply-adds for its accuracy; many small kernels"
    ),
    "ssdlite320_lcnet": ZooEntry("lcnet_100", 320, 2.5, 422, "made for x86 processors"),
    "ssdlite320_mnasnet": ZooEntry(
        "mnasnet_100", 320, 3.94, 658, "searched for phone processors; plain ReLU"
    ),
    "ssdlite320_mobilenetv1": ZooEntry(
        "mobilenetv1_100", 320, 5.23, 1361, "no residual adds, so little is lost in INT8"
    ),
    "ssdlite320_mobilenetv2": ZooEntry(
        "mobilenetv2_100", 320, 3.06, 630, "the default: ReLU6 throughout, fast in INT8 on every runtime"
    ),
    "ssdlite320_mobilenetv3_large": ZooEntry(
        "mobilenetv3_large_100", 320, 4.73, 549, "accurate in float; hard-swish costs speed in INT8"
    ),
    "ssdlite320_mobilenetv3_small": ZooEntry(
        "mobilenetv3_small_100", 320, 1.73, 165, "small and fast in float", (256, 128, 128, 64)
    ),
    "ssdlite320_mobilenetv4_small": ZooEntry(
        "mobilenetv4_conv_small", 320, 3.01, 484, "plain convolutions and ReLU, for phone accelerators"
    ),
    "ssdlite320_resnet18": ZooEntry("resnet18", 320, 12.66, 3810, "no depthwise backbone; for GPUs"),
}


def zoo_config(name: str, labels: tuple[str, ...]) -> DetectorConfig:
    """The configuration of a detector of the zoo for one's own labels.

    Raises:
        UsageError: The zoo has no such detector.
    """
    if name not in ZOO:
        close = difflib.get_close_matches(name, ZOO, n=3) or list(ZOO)
        raise UsageError(
            "there is no such detector in the zoo",
            got=repr(name),
            expected=f"one of {', '.join(close)}",
            fix="list them with `edgedet models`",
        )
    entry = ZOO[name]
    head = SsdLiteConfig(extra_channels=entry.extra_channels)
    return DetectorConfig(
        name=name,
        labels=labels,
        input=InputSpec(size_hw=(entry.size, entry.size)),
        backbone=BackboneConfig(name=entry.backbone),
        head=head,
    )
