from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from edgedet.training.losses import distillation_loss, multibox_loss


def targets(images: int = 2, priors: int = 40, positives: int = 3):
    labels = torch.zeros(images, priors, dtype=torch.long)
    labels[:, :positives] = torch.arange(positives) % 2 + 1
    return torch.zeros(images, priors, 4), labels


def test_a_perfect_prediction_costs_nothing():
    offsets, labels = targets()
    logits = F.one_hot(labels, 3).float() * 100
    sums = multibox_loss(offsets, logits, offsets, labels)
    assert sums.boxes == 0
    assert sums.classes == pytest.approx(0, abs=1e-6)
    assert sums.positives == 6


def test_classes_count_positives_and_the_three_times_as_many_hardest_negatives():
    _, labels = targets(images=1)
    logits = torch.randn(1, 40, 3, generator=torch.Generator().manual_seed(0))
    entropy = F.cross_entropy(logits[0], labels[0], reduction="none")
    expected = entropy[:3].sum() + entropy[3:].sort(descending=True).values[:9].sum()
    found = multibox_loss(torch.zeros(1, 40, 4), logits, torch.zeros(1, 40, 4), labels).classes
    assert found == pytest.approx(expected.item(), rel=1e-5)


def test_only_positives_have_a_box_loss():
    offsets, labels = targets(images=1)
    predicted = torch.full((1, 40, 4), 2.0)
    sums = multibox_loss(predicted, torch.zeros(1, 40, 3), offsets, labels)
    assert sums.boxes == 3 * 4 * (2.0 - 0.5)


def test_ignored_priors_have_no_gradient():
    offsets, labels = targets(images=1)
    labels[0, 10:40] = -1
    logits = torch.randn(1, 40, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    predicted = torch.ones(1, 40, 4, requires_grad=True)
    sums = multibox_loss(predicted, logits, offsets, labels)
    (sums.boxes + sums.classes).backward()
    assert not logits.grad[0, 10:].any()
    assert not predicted.grad[0, 10:].any()
    assert logits.grad[0, :10].abs().sum(dim=1).min() > 0


def test_an_image_without_objects_teaches_through_three_negatives():
    logits = torch.zeros(1, 40, 3, requires_grad=True)
    sums = multibox_loss(
        torch.zeros(1, 40, 4), logits, torch.zeros(1, 40, 4), torch.zeros(1, 40, dtype=torch.long)
    )
    sums.classes.backward()
    assert sums.positives == 0
    assert (logits.grad.abs().sum(dim=2) > 0).sum() == 3


def outputs(seed: int, images: int = 2, priors: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(images, priors, 4, generator=rng), torch.randn(images, priors, 3, generator=rng)


def test_who_says_what_the_teacher_says_has_nothing_to_learn():
    offsets, logits = outputs(0)
    shifted = logits + torch.randn(
        2, 40, 1, generator=torch.Generator().manual_seed(1)
    )  # equal probabilities
    assert distillation_loss(offsets, shifted, offsets, logits) == pytest.approx(0, abs=1e-5)


def test_classes_are_learned_at_every_prior_from_the_probabilities_of_the_teacher():
    (offsets, logits), (_, other) = outputs(0), outputs(1)
    expected, found = logits.softmax(2), other.softmax(2)
    divergence = (expected * (expected / found).log()).sum().item()
    assert distillation_loss(offsets, other, offsets, logits) == pytest.approx(divergence, rel=1e-4)


def test_boxes_are_learned_where_the_teacher_sees_objects():
    offsets, logits = outputs(0)
    logits[:, :30, 0] = 30.0  # background, to the teacher
    moved = (offsets + 2).requires_grad_()
    loss = distillation_loss(moved, logits, offsets, logits)
    seen = (1 - logits.softmax(2)[..., 0]).sum().item()
    assert loss.item() == pytest.approx(seen * 4 * (2.0 - 0.5), rel=1e-4)
    loss.backward()
    assert moved.grad[:, :30].abs().max() < 1e-9 < moved.grad[:, 30:].abs().min()
