from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from edgedet.data.dataset import LabelledImage
from edgedet.data.synthetic import SyntheticDataset
from edgedet.errors import DataError
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
    first = TrainingSamples(DATASET, spec, AugmentationConfig(), seed=5, cache_bytes=1 << 20)
    second = TrainingSamples(DATASET, spec, AugmentationConfig(), seed=5)
    torch.manual_seed(1)
    for index in (4, 0):
        _ = first[index]
    for a, b in zip(first[2], second[2], strict=True):
        assert torch.equal(a, b)
    second.epoch = 1
    assert not torch.equal(first[2][0], second[2][0])


class Counted(SyntheticDataset):
    """Six images that count how often each is decoded, the second of which cannot be read."""

    def __init__(self, broken: tuple[int, ...] = (1,)) -> None:
        super().__init__("val", size=6)
        self.reads: Counter[int] = Counter()
        self.broken = broken

    def __getitem__(self, index: int) -> LabelledImage:
        self.reads[index] += 1
        if index in self.broken:
            raise DataError("cannot read it")
        return super().__getitem__(index)


def test_without_a_cache_nothing_is_decoded_before_it_is_asked_for(spec):
    data = Counted()
    samples = TrainingSamples(data, spec, PLAIN)
    assert not data.reads
    _ = samples[3]
    assert data.reads == {3: 1}


def test_the_cache_keeps_what_fits_and_the_rest_is_read_anew(spec):
    data = Counted()
    room = DATASET[0].image_bgr.nbytes + DATASET[2].image_bgr.nbytes
    samples = TrainingSamples(data, spec, PLAIN, cache_bytes=room)
    data.reads.clear()
    for index in (0, 2, 3, 4, 4):
        _ = samples[index]
    assert data.reads == {3: 1, 4: 2}


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_the_next_image_stands_in_for_one_that_cannot_be_read(spec, cache_bytes):
    samples = TrainingSamples(Counted((1, 5)), spec, PLAIN, cache_bytes=cache_bytes)
    assert len(samples) == 6
    for broken, stand_in in ((1, 2), (5, 0)):
        assert torch.equal(samples[broken][0], samples[stand_in][0])
    expected = [preprocess(DATASET[index].image_bgr, spec.input)[0][0] for index in (0, 2, 2, 3, 4, 0)]
    np.testing.assert_array_equal(samples.plain_images(6).numpy(), np.stack(expected))


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_images_none_of_which_can_be_read_are_an_error(spec, cache_bytes):
    samples = TrainingSamples(Counted(tuple(range(6))), spec, PLAIN, cache_bytes=cache_bytes)
    with pytest.raises(DataError, match="nothing to train on"):
        _ = samples[0]


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
