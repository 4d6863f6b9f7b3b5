from __future__ import annotations

import pytest
import torch
from torch import nn

from edgedet.errors import TrainingError
from edgedet.models.config import BackboneConfig, DetectorConfig, SsdLiteConfig
from edgedet.models.detector import Detector, build_detector
from edgedet.spec import InputSpec
from edgedet.training.config import OptimizerConfig, QatConfig, TrainConfig
from edgedet.training.dataset import Batch
from edgedet.training.distributed import Group
from edgedet.training.ema import MovingAverage
from edgedet.training.history import EpochRecord
from edgedet.training.loop import Trainer, make_optimizer
from edgedet.training.schedule import warmup_cosine

CONFIG = TrainConfig(
    detector=DetectorConfig(
        name="tiny",
        labels=("a",),
        input=InputSpec(size_hw=(64, 64)),
        backbone=BackboneConfig(name="lcnet_035", out_strides=(16,)),
        head=SsdLiteConfig(extra_channels=(), scales=(0.2, 0.5)),
    ),
    epochs=2,
    amp=False,
)


def a_batch(value: float = 0.5) -> Batch:
    priors = CONFIG.detector.priors.count
    labels = torch.zeros(2, priors, dtype=torch.long)
    labels[:, 5] = 1
    return Batch(torch.full((2, 3, 64, 64), value), torch.zeros(2, priors, 4), labels)


def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_the_weights():
    trainer = Trainer(build_detector(CONFIG.detector), CONFIG, 1, Group())
    before = {key: value.clone() for key, value in trainer.detector.named_parameters()}
    with pytest.raises(TrainingError, match="epoch 2, step 1"):
        trainer.run_epoch(1, [a_batch(float("inf"))])
    assert all(torch.equal(before[key], value) for key, value in trainer.detector.named_parameters())


def test_steps_on_one_batch_lower_its_loss():
    trainer = Trainer(build_detector(CONFIG.detector), CONFIG, 10, Group())
    first, last = trainer.run_epoch(0, [a_batch()] * 10), trainer.run_epoch(1, [a_batch()] * 5)
    assert last.loss < first.loss


def test_a_teacher_is_asked_and_stays_what_it_is():
    def record(weight: float, teacher: Detector | None) -> EpochRecord:
        config = CONFIG.model_copy(update={"qat": QatConfig(distillation=weight)})
        torch.manual_seed(0)
        return Trainer(build_detector(CONFIG.detector), config, 1, Group(), teacher).run_epoch(0, [a_batch()])

    torch.manual_seed(1)
    teacher = build_detector(CONFIG.detector).eval().requires_grad_(False)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    alone, once, twice = record(1, None), record(1, teacher), record(2, teacher)
    assert alone.distillation_loss is None
    assert 0 < once.distillation_loss == pytest.approx(twice.distillation_loss / 2)
    assert once.loss == pytest.approx(once.box_loss + once.class_loss + once.distillation_loss)
    assert (once.box_loss, once.class_loss) == pytest.approx((alone.box_loss, alone.class_loss))
    assert not any(module.training for module in teacher.modules())
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())


def test_steps_towards_a_teacher_bring_its_outputs_nearer():
    torch.manual_seed(1)
    teacher = build_detector(CONFIG.detector).eval().requires_grad_(False)
    config = CONFIG.model_copy(update={"qat": QatConfig(distillation=100.0)})
    torch.manual_seed(0)
    trainer = Trainer(build_detector(CONFIG.detector), config, 10, Group(), teacher)
    first, last = trainer.run_epoch(0, [a_batch()] * 10), trainer.run_epoch(1, [a_batch()] * 5)
    assert last.distillation_loss < 0.9 * first.distillation_loss


def test_frozen_normalisation_keeps_its_statistics():
    config = CONFIG.model_copy(update={"freeze_norm": True})
    trainer = Trainer(build_detector(CONFIG.detector), config, 1, Group())
    trainer.run_epoch(0, [a_batch()])
    norms = [m for m in trainer.detector.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert all(not norm.running_mean.any() for norm in norms)


def test_weight_decay_is_on_convolution_weights_only():
    optimizer = make_optimizer(build_detector(CONFIG.detector), OptimizerConfig(weight_decay=0.1))
    decays = {p.ndim: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {4: 0.1, 1: 0.0}


def test_the_schedule_warms_up_and_ends_at_zero():
    rates = [warmup_cosine(step, 100, 10) for step in range(101)]
    assert rates[0] == 0.1
    assert max(rates) == rates[9] == rates[10] == 1
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0)


def test_the_average_forgets_its_start_and_follows_slowly():
    module = nn.Linear(1, 1, bias=False)
    average = MovingAverage(module, 0.5)
    module.weight.data.fill_(8.0)
    start = average.module.weight.item()
    average.update(module, 0)
    assert average.module.weight.item() == pytest.approx(0.1 * start + 0.9 * 8, rel=1e-5)
    module.weight.data.fill_(0.0)
    before = average.module.weight.item()
    average.update(module, 1000)
    assert average.module.weight.item() == pytest.approx(before / 2, rel=1e-5)


def test_an_average_without_decay_is_the_last_weights():
    module = nn.BatchNorm2d(2)
    average = MovingAverage(module, 0)
    module(torch.randn(4, 2, 3, 3))
    average.update(module, 5)
    assert all(
        torch.equal(a, b)
        for a, b in zip(average.module.state_dict().values(), module.state_dict().values(), strict=True)
    )
