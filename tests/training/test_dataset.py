from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from edgedet.data.synthetic import SyntheticDataset
from edgedet.models.config import BackboneConfig, DetectorConfig, SsdLiteConfig
from edgedet.models.detector import build_detector
from edgedet.preprocess import preprocess
from edgedet.spec import InputSpec
from edgedet.training.config import AugmentationConfig, TrainConfig
from edgedet.training.dataset import TrainingSamples, batch_indices, loader
from edgedet.training.distributed import Group

DATASET = SyntheticDataset("val", size=6)
DETECTOR = DetectorConfig(
    name="tiny",
    labels=DATASET.labels,
    input=InputSpec(size_hw=(96, 96)),
    backbone=BackboneConfig(name="lcnet_035", out_strides=(16,)),
    head=SsdLiteConfig(extra_channels=(), scales=(0.2, 0.5)),
)
PLAIN = AugmentationConfig(photometric=0, zoom_out=0, iou_crop=0, horizontal_flip=0)


@pytest.fixture(scope="module")
def spec():
    return build_detector(DETECTOR).spec()


def test_a_sample_depends_on_seed_epoch_and_index_alone(spec):
    first = TrainingSamples(DATASET, spec, AugmentationConfig(), seed=5)
    second = TrainingSamples(DATASET, spec, AugmentationConfig(), seed=5, cache=False)
    torch.manual_seed(1)
    for index in (4, 0):
        _ = first[index]
    for a, b in zip(first[2], second[2], strict=True):
        assert torch.equal(a, b)
    second.epoch = 1
    assert not torch.equal(first[2][0], second[2][0])


def test_without_augmentation_the_network_sees_what_inference_sees(spec):
    samples = TrainingSamples(DATASET, spec, PLAIN)
    for index in range(len(samples)):
        expected = preprocess(DATASET[index].image_bgr, spec.input)[0][0]
        np.testing.assert_array_equal(samples[index][0].numpy(), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_gives_whole_batches(spec, workers):
    samples = TrainingSamples(DATASET, spec, PLAIN)
    config = TrainConfig(detector=DETECTOR, batch_size=4, workers=workers)
    batches = list(loader(samples, config, 0, Group()))
    assert [tuple(batch.images.shape) for batch in batches] == [(4, 3, 96, 96)]
    assert batches[0].labels.shape == (4, spec.outputs[0].shape[1])


def test_two_processes_share_the_batches_of_one():
    whole = batch_indices(50, 8, seed=1, epoch=2, group=Group())
    halves = [batch_indices(50, 4, seed=1, epoch=2, group=Group(rank=r, size=2)) for r in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole
    assert max(Counter(i for batch in whole for i in batch).values()) == 1
    assert len(whole) == 6


def test_epochs_have_different_orders():
    assert batch_indices(50, 8, 1, 0, Group()) != batch_indices(50, 8, 1, 1, Group())


def test_fewer_images_than_a_batch_make_one_small_batch():
    assert [len(batch) for batch in batch_indices(5, 8, 0, 0, Group())] == [5]
