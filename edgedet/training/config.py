"""The configuration of a training run: one TOML file, every key of which is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from edgedet.models.config import WRITE_ONE, DetectorConfig, validated
from edgedet.spec import Value
from edgedet.toml import read_toml

# What `weights` is when timm is to fetch them.
PRETRAINED = "pretrained"

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class DataConfig(Value):
    """Where the images are and which parts of them are used.

    Attributes:
        path: What `edgedet.data.open_dataset` opens; usually given on the command line instead.
        train: Split to train on; `a+b` joins two. All images when empty, as data without splits need it:
            leaving the key out means "train".
        evaluate: Split to measure on during and after training; nothing is measured when empty. Leaving the
            key out means "val".
        cache: Decode images once, before the first step, and keep them in memory.
        cache_bytes: Most memory for that in each process; images beyond it are read whenever they are needed.
    """

    path: str = ""
    train: str = "train"
    evaluate: str = "val"
    cache: bool = True
    cache_bytes: Annotated[int, Field(ge=0)] = 2 << 30


class OptimizerConfig(Value):
    """AdamW (Loshchilov and Hutter, ICLR 2019) with linear warm-up and a cosine to zero.

    Attributes:
        learning_rate: After the warm-up.
        weight_decay: Of convolution weights; normalisation and biases have none.
        warmup_epochs: Linear from zero.
        clip_norm: Longest gradient.
    """

    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    clip_norm: Positive = 10.0


class AugmentationConfig(Value):
    """Random changes of training images; probabilities, and ranges as ratios.

    Attributes:
        photometric: Probability of the colour jitter.
        brightness: And `contrast`, `saturation`, `hue`: strengths as in torchvision's `ColorJitter`.
        zoom_out: Probability of shrinking the image into a larger canvas, up to `zoom_out_max` times.
        iou_crop: Probability of SSD's crop with a minimum IoU (section 2.2), of `crop_scale` of each side.
        horizontal_flip: Probability.
        vertical_flip: Probability, for images without an up, such as from a microscope.
    """

    photometric: Fraction = 0.5
    brightness: Fraction = 0.2
    contrast: Fraction = 0.3
    saturation: Fraction = 0.3
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.03
    zoom_out: Fraction = 0.5
    zoom_out_max: Annotated[float, Field(ge=1, le=8)] = 2.0
    iou_crop: Fraction = 0.5
    crop_scale: tuple[Fraction, Fraction] = (0.3, 1.0)
    horizontal_flip: Fraction = 0.5
    vertical_flip: Fraction = 0.0


class QatConfig(Value):
    """What differs in quantization-aware training, which goes on from weights trained in float.

    Attributes:
        epochs: A tenth of a training in float is usual.
        learning_rate: Small: the weights are good already.
        images: Training images whose statistics give the first ranges.
        distillation: Weight of learning what the float detector says of the same images, beside the labels.
    """

    epochs: Annotated[int, Field(gt=0)] = 10
    learning_rate: Positive = 1e-4
    distillation: Annotated[float, Field(ge=0)] = 1.0
    images: Annotated[int, Field(gt=0)] = 96


class TrainConfig(Value):
    """Everything that fixes a training run, but for where its data are.

    On CPUs, several processes compute the statistics of batch normalisation over their own images only (torch
    has `SyncBatchNorm` for GPUs alone): there two processes with batch size b learn almost, and not exactly,
    what one with 2 b does, unless `freeze_norm` is set.

    Attributes:
        batch_size: Images of one process and step.
        workers: Processes that prepare images; 0 does it in between.
        amp: bfloat16 where the device has it in hardware.
        ema_decay: Of the moving average of the weights, which is what is evaluated and saved.
        freeze_norm: Keep the statistics of batch normalisation as they are loaded.
        evaluate_every: Epochs between evaluations.
        quantized: Quantization-aware training, with what `qat` says; usually asked for on the command line.
        half: Round the weights of the checkpoint to float16, which halves its file.
        weights: What to start from; usually given on the command line instead. "pretrained" lets timm
            fetch the backbone's ImageNet weights.
    """

    detector: DetectorConfig
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    qat: QatConfig = QatConfig()
    seed: Annotated[int, Field(ge=0)] = 0
    epochs: Annotated[int, Field(gt=0)] = 60
    batch_size: Annotated[int, Field(gt=0)] = 8
    workers: Annotated[int, Field(ge=0)] = 0
    amp: bool = True
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.998
    freeze_norm: bool = False
    evaluate_every: Annotated[int, Field(gt=0)] = 10
    quantized: bool = False
    half: bool = False
    weights: str = ""


def read_train_config(path: Path, *, quantized: bool = False) -> TrainConfig:
    """Read a training configuration.

    Args:
        path: TOML.
        quantized: Ask for quantization-aware training, whatever the file says.

    Raises:
        ConfigError: The file cannot be read, is no TOML, or a key is missing, unknown or has a wrong value.
    """
    config = validated(TrainConfig, read_toml(path, WRITE_ONE), path)
    return _for_qat(config) if quantized or config.quantized else config


def _for_qat(config: TrainConfig) -> TrainConfig:
    """The run that goes on in 8 bits: shorter, in float32, under a name of its own."""
    qat, detector = config.qat, config.detector
    optimizer = config.optimizer.model_copy(
        update={"learning_rate": qat.learning_rate, "warmup_epochs": min(config.optimizer.warmup_epochs, 0.5)}
    )
    return config.model_copy(
        update={
            "quantized": True,
            "epochs": qat.epochs,
            "amp": False,
            "half": False,  # weights come to lie between two integers, where float16 decides for one of them
            "optimizer": optimizer,
            "detector": detector.model_copy(update={"name": f"{detector.name}_qat"}),
        }
    )
