"""One epoch of training, and what it keeps between epochs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgedet.errors import DataError, TrainingError
from edgedet.models.detector import Detector
from edgedet.training.config import OptimizerConfig, TrainConfig
from edgedet.training.dataset import Batch
from edgedet.training.distributed import Group
from edgedet.training.ema import MovingAverage
from edgedet.training.history import EpochRecord
from edgedet.training.losses import distillation_loss, multibox_loss
from edgedet.training.schedule import warmup_cosine

# Learned ranges move in shares of themselves; at a weight's pace a short training would leave them where they
# were.
_RANGE_PACE = 10.0


class Trainer:
    """A detector with its optimizer and moving average.

    Args:
        detector: What to train, on the group's device.
        config: Of the run.
        steps_per_epoch: For the learning rate.
        group: The processes that train together.
        teacher: In float, for inference, on the group's device: what to learn from beside the labels, as
            `qat.distillation` weighs it.
    """

    def __init__(
        self,
        detector: Detector,
        config: TrainConfig,
        steps_per_epoch: int,
        group: Group,
        teacher: Detector | None = None,
    ) -> None:
        # Convolutions of narrow layers are 1.2 to 1.5 times as fast in this layout, on CPUs and GPUs.
        self.detector = detector.to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(detector, config.optimizer)
        self.average = MovingAverage(detector, config.ema_decay)
        self._config, self._group = config, group
        self._steps_per_epoch = steps_per_epoch
        self._teacher = None if teacher is None else teacher.to(memory_format=torch.channels_last)
        group.share(detector)
        if group.size > 1 and group.device.type == "cuda":
            self.detector = nn.SyncBatchNorm.convert_sync_batchnorm(detector)  # type: ignore[no-untyped-call]
        self._amp = config.amp and has_bfloat16(group.device)

    def run_epoch(self, epoch: int, batches: Iterable[Batch]) -> EpochRecord:
        """Train one epoch, counted from 0.

        Raises:
            TrainingError: The loss is not finite.
            DataError: One image is too few for batch normalisation.
        """
        self.detector.train()
        if self._config.freeze_norm:
            freeze_norm(self.detector)
        torch.manual_seed(self._config.seed + epoch)
        started, sums, steps = time.perf_counter(), torch.zeros(3), 0
        step = epoch * self._steps_per_epoch
        for batch in batches:
            rate = self._set_learning_rate(step)
            losses = self._step(batch.to(self._group.device))
            if not torch.isfinite(losses).all():
                raise TrainingError(
                    f"the loss is not finite in epoch {epoch + 1}, step {step}",
                    got=f"boxes {losses[0]:g}, classes {losses[1]:g}, distillation {losses[2]:g} "
                    f"at a learning rate of {rate:.2e}",
                    expected="finite numbers",
                    fix="lower optimizer.learning_rate or optimizer.clip_norm and train in another --output",
                )
            self.average.update(self.detector, step)
            sums += losses
            steps += 1
            step += 1
        box_loss, class_loss, distilled = (sums / max(steps, 1)).tolist()
        return EpochRecord(
            epoch=epoch + 1,
            loss=box_loss + class_loss + distilled,
            box_loss=box_loss,
            class_loss=class_loss,
            distillation_loss=None if self._teacher is None else distilled,
            learning_rate=rate,
            seconds=round(time.perf_counter() - started, 2),
        )

    def _step(self, batch: Batch) -> Tensor:
        """One step; returns box, class and distillation loss over all processes, `[3]` on the CPU."""
        images = batch.images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._group.device.type, torch.bfloat16, enabled=self._amp), _alone(len(images)):
            offsets, logits = self.detector(images)
        sums = multibox_loss(offsets, logits, batch.offsets, batch.labels)
        distilled = torch.zeros_like(sums.boxes)
        if self._teacher is not None:
            with torch.no_grad():
                expected = self._teacher(images)
            distilled = self._config.qat.distillation * distillation_loss(offsets, logits, *expected)
        terms = torch.stack([sums.boxes, sums.classes, distilled])
        positives = self._group.total(sums.positives).clamp(min=1)
        loss = terms.sum() / positives
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._group.add_gradients(self.detector)
        nn.utils.clip_grad_norm_(self.detector.parameters(), self._config.optimizer.clip_norm)
        losses = self._group.total(terms.detach()) / positives
        losses = losses.cpu()
        if torch.isfinite(losses).all():
            self.optimizer.step()
        return losses

    def _set_learning_rate(self, step: int) -> float:
        optimizer, per_epoch = self._config.optimizer, self._steps_per_epoch
        warmup = math.ceil(optimizer.warmup_epochs * per_epoch)
        rate = optimizer.learning_rate * warmup_cosine(step, self._config.epochs * per_epoch, warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("pace", 1.0)
        return rate


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; elsewhere it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older versions of torch do not tell: then float32 it is.
    features: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(features.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def make_optimizer(module: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW with weight decay on convolution weights only (Bag of Tricks, CVPR 2019, section 3.1)."""
    decayed = [p for p in module.parameters() if p.ndim > 1]
    plain = [p for p in module.parameters() if p.ndim == 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if ranges := [p for p in module.parameters() if p.ndim == 0]:
        groups.append({"params": ranges, "weight_decay": 0.0, "pace": _RANGE_PACE})
    return torch.optim.AdamW(groups, lr=config.learning_rate)


@contextmanager
def _alone(images: int) -> Iterator[None]:
    """Say what helps where PyTorch cannot normalise a map of one value."""
    try:
        yield
    except ValueError as exc:
        if images > 1 or "more than 1 value per channel" not in str(exc):
            raise
        raise DataError(
            "batch normalisation cannot learn from one image at a time",
            got="a step of one image, of which the last maps have one position",
            expected="two images in a step, or statistics that stay as they are",
            fix="set batch_size to 2 or more, and give as many images; or set freeze_norm = true and start "
            "from trained --weights",
        ) from exc


def freeze_norm(module: nn.Module) -> None:
    """Use the stored statistics of batch normalisation instead of the batch's."""
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            child.eval()
