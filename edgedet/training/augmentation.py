"""Random changes of an image and its boxes, on uint8 pixels, before the preprocessing of inference."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision import tv_tensors  # type: ignore[import-untyped]
from torchvision.transforms import v2  # type: ignore[import-untyped]

from edgedet.boxes import Floats, Ints
from edgedet.preprocess import Image
from edgedet.training.config import AugmentationConfig

_CROP_ASPECT = (0.5, 2.0)


class Augmentation:
    """Photometric jitter, zoom-out, IoU crop and flips; draws from torch's global generator.

    Args:
        config: Probabilities and strengths.
        fill_rgb: Colour around a shrunk image.
    """

    def __init__(self, config: AugmentationConfig, fill_rgb: tuple[int, int, int] = (124, 116, 104)) -> None:
        jitter = v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue)
        fill = {tv_tensors.Image: fill_rgb, "others": 0}
        crop = v2.RandomIoUCrop(
            config.crop_scale[0],
            config.crop_scale[1],
            min_aspect_ratio=_CROP_ASPECT[0],
            max_aspect_ratio=_CROP_ASPECT[1],
        )
        self._transform = v2.Compose(
            [
                v2.RandomZoomOut(fill, side_range=(1.0, config.zoom_out_max), p=config.zoom_out),
                v2.RandomApply([crop], config.iou_crop),
                v2.RandomHorizontalFlip(config.horizontal_flip),
                v2.RandomVerticalFlip(config.vertical_flip),
                v2.RandomApply([jitter], config.photometric),
                v2.ClampBoundingBoxes(),
                v2.SanitizeBoundingBoxes(labels_getter=lambda inputs: inputs[2]),
            ]
        )

    def __call__(self, image_bgr: Image, boxes_xyxy: Floats, class_ids: Ints) -> tuple[Image, Floats, Ints]:
        """Change one image; boxes that leave it or shrink below a pixel are dropped with their classes."""
        pixels = torch.from_numpy(image_bgr[..., ::-1].transpose(2, 0, 1).copy())
        boxes = tv_tensors.BoundingBoxes(
            torch.from_numpy(boxes_xyxy.copy()),
            format=tv_tensors.BoundingBoxFormat.XYXY,
            canvas_size=image_bgr.shape[:2],
        )
        out: tuple[Tensor, Tensor, Tensor] = self._transform(
            tv_tensors.Image(pixels), boxes, torch.from_numpy(class_ids)
        )
        image = out[0].flip(0).permute(1, 2, 0).contiguous().numpy()
        return image, out[1].as_subclass(Tensor).float().numpy(), out[2].numpy()
