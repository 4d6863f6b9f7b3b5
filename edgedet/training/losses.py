"""What a detector learns from: boxes with labels (SSD, ECCV 2016, section 2.2), and another detector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from edgedet.training.targets import BACKGROUND, IGNORED

_NEGATIVES_PER_POSITIVE = 3


@dataclass(frozen=True, slots=True, eq=False)
class LossSums:
    """Sums over a batch, to be divided by the number of positives of all processes.

    Attributes:
        boxes: Smooth L1 of the offsets of positives, scalar.
        classes: Cross-entropy of positives and hard negatives, scalar.
        positives: Scalar.
    """

    boxes: Tensor
    classes: Tensor
    positives: Tensor


def multibox_loss(offsets: Tensor, logits: Tensor, target_offsets: Tensor, target_labels: Tensor) -> LossSums:
    """Smooth L1 on positives; cross-entropy on positives and three times as many hardest negatives.

    Negatives are chosen in each image by itself; an image without objects counts as if it had one positive,
    so that it teaches too.

    Args:
        offsets: Predicted, `[N, P, 4]`.
        logits: Predicted, `[N, P, classes + 1]`.
        target_offsets: `[N, P, 4]`.
        target_labels: `[N, P]`: 0 background, class id + 1, -1 ignored.
    """
    positive = target_labels > BACKGROUND
    box_loss = F.smooth_l1_loss(offsets[positive].float(), target_offsets[positive], reduction="sum")
    entropy = F.cross_entropy(
        logits.float().flatten(0, 1), target_labels.flatten(), ignore_index=IGNORED, reduction="none"
    ).view_as(target_labels)
    chosen = positive | _hard_negatives(entropy.detach(), target_labels, positive)
    return LossSums(box_loss, entropy[chosen].sum(), positive.sum())


def distillation_loss(
    offsets: Tensor, logits: Tensor, expected_offsets: Tensor, expected_logits: Tensor
) -> Tensor:
    """How far a detector's outputs are from those of its teacher for the same images: a sum over a batch.

    Classes: divergence of the class probabilities from the teacher's (Hinton et al., Distilling the Knowledge
    in a Neural Network, 2015, at temperature 1) at every prior; a background that both are sure of costs
    nothing. Boxes: smooth L1 of the offsets, as in `multibox_loss`, weighted by the probability that the
    teacher gives to there being an object.

    Args:
        offsets: Predicted, `[N, P, 4]`.
        logits: Predicted, `[N, P, classes + 1]`.
        expected_offsets: The teacher's, `[N, P, 4]`.
        expected_logits: The teacher's, `[N, P, classes + 1]`.

    Returns:
        Scalar, to be divided by the number of positives as `LossSums` are.
    """
    expected = F.log_softmax(expected_logits.float(), dim=2)
    classes = F.kl_div(F.log_softmax(logits.float(), dim=2), expected, reduction="sum", log_target=True)
    is_object = 1 - expected[..., BACKGROUND, None].exp()
    boxes = F.smooth_l1_loss(offsets.float(), expected_offsets.float(), reduction="none")
    return classes + (is_object * boxes).sum()


def _hard_negatives(entropy: Tensor, target_labels: Tensor, positive: Tensor) -> Tensor:
    hardness = entropy.masked_fill(target_labels != BACKGROUND, -torch.inf)
    wanted = _NEGATIVES_PER_POSITIVE * positive.sum(dim=1, keepdim=True).clamp(min=1)
    order = hardness.argsort(dim=1, descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    return (ranks < wanted) & (target_labels == BACKGROUND)
