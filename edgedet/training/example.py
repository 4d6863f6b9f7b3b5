"""A training configuration to start from: every key with its value and what it means, as TOML."""

from __future__ import annotations

import json
from typing import Any

from edgedet.models.zoo import zoo_config
from edgedet.spec import Value
from edgedet.training.config import TrainConfig

# To be replaced by the names in one's annotations.
_LABELS = ("cat", "dog")

# What is written above each key; what is not here has one legal value and is left out.
_RUN = {
    "seed": "The same seed, data and number of processes give the same run.",
    "epochs": "",
    "batch_size": "Images of one process and step.",
    "workers": "Processes that prepare images; 0 prepares them between the steps.",
    "amp": "bfloat16 where the device has it in hardware.",
    "ema_decay": "Of the moving average of the weights, which is what is evaluated and saved.",
    "freeze_norm": "Keep the statistics of batch normalisation as they are loaded.",
    "evaluate_every": "Epochs between evaluations.",
    "quantized": "Quantization-aware training, as --qat asks for.",
    "half": "Round the weights of the checkpoint to float16, which halves its file.",
    "weights": 'What to start from when --weights is not given: a file, "pretrained" (timm fetches the\n'
    'ImageNet weights of the backbone), or "" for random weights, which need far more images.',
}
_DATA = {
    "path": "Used when --data is not given.",
    "train": 'Split to train on; "train+val" joins two, "" is all images, for data without splits.',
    "evaluate": 'Split to measure on; "" measures nothing. Keep test images out of both.',
    "cache": "Decode images once and keep them in memory, up to so many bytes in each process.",
    "cache_bytes": "",
}
_QAT = {
    "epochs": "Quantization-aware training (--qat) goes on from weights trained in float.",
    "learning_rate": "",
    "images": "Training images whose statistics give the first ranges.",
    "distillation": "Weight of what the float detector says of the same images, beside the labels.",
}
_OPTIMIZER = {
    "learning_rate": "AdamW: linear warm-up, then a cosine to zero.",
    "weight_decay": "",
    "warmup_epochs": "",
    "clip_norm": "Longest gradient.",
}
_AUGMENTATION = {
    "photometric": "Probability of the colour jitter, and its strengths.",
    "brightness": "",
    "contrast": "",
    "saturation": "",
    "hue": "",
    "zoom_out": "Probability of shrinking the image into a larger canvas, and how many times larger.",
    "zoom_out_max": "",
    "iou_crop": "Probability of a crop, and the shares of each side that it keeps.",
    "crop_scale": "",
    "horizontal_flip": "Probabilities; flip vertically only what has no up.",
    "vertical_flip": "",
}
_DETECTOR = {
    "name": "Names the run's folder and the checkpoint.",
    "labels": "EDIT: the names in your annotations, in the order that class ids shall have.",
    "score_threshold": "Defaults of what the trained detector reports.",
    "iou_threshold": "",
    "max_detections": "",
}
_INPUT = {
    "size_hw": "Height and width of the input tensor.",
    "colour": '"rgb" or "bgr".',
    "mean": "In pixel units of 0..255, in the order of the colours.",
    "std": "",
    "resize": '"stretch", or "letterbox", which keeps the aspect ratio and pads with pad_value.',
    "interpolation": '"nearest", "linear_exact", "area", or "linear", which rounds by processor.',
    "pad_value": "",
}
_BACKBONE = {
    "name": "A timm backbone; `edgedet models` lists those of the zoo.",
    "out_strides": "Strides of the feature maps that the head reads; add 8 for small objects.",
}
_HEAD = {
    "extra_channels": "A further feature map of half the size for each.",
    "scales": "Sizes of the prior boxes as fractions of the input's side, one more than there are maps.",
    "aspect_ratios": "Of the prior boxes, besides 1 and with their inverses: one list, or one for each map.",
    "variances": "",
}


def example_config(name: str) -> str:
    """A whole configuration for a detector of the zoo, which `read_train_config` reads back.

    Raises:
        UsageError: The zoo has no such detector.
    """
    config = TrainConfig(detector=zoo_config(name, _LABELS))
    detector = config.detector
    tables: list[tuple[str, Value, dict[str, str]]] = [
        ("", config, _RUN),
        ("data", config.data, _DATA),
        ("optimizer", config.optimizer, _OPTIMIZER),
        ("augmentation", config.augmentation, _AUGMENTATION),
        ("qat", config.qat, _QAT),
        ("detector", detector, _DETECTOR),
        ("detector.input", detector.input, _INPUT),
        ("detector.backbone", detector.backbone, _BACKBONE),
        ("detector.head", detector.head, _HEAD),
    ]
    head = (
        f"# {name} with every key at its default. Edit labels, then\n#   edgedet train THIS_FILE --data DIR"
    )
    return "\n\n".join([head, *(_table(title, value, keys) for title, value, keys in tables)]) + "\n"


def _table(title: str, value: Value, keys: dict[str, str]) -> str:
    lines = [f"[{title}]"] if title else []
    for key, comment in keys.items():
        lines += [f"# {line}" for line in comment.splitlines()]
        lines.append(f"{key} = {_literal(getattr(value, key))}")
    return "\n".join(lines)


def _literal(value: Any) -> str:
    """TOML of a string, a number, a truth value or a list of them: what JSON writes is TOML."""
    return json.dumps(value, ensure_ascii=False)
