"""SSD's priors, offsets and scores against independent constructions."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from edgedet.boxes import cxcywh_to_xyxy
from edgedet.decode import decode, find_candidates
from edgedet.decode.ssd import candidates, decode_offsets, encode_offsets, priors_cxcywh
from edgedet.preprocess import Geometry
from edgedet.spec import DetectorSpec, InputSpec, OutputSpec, SsdDecoder, SsdPriors

VARIANCES = (0.1, 0.2)

SSD300 = SsdPriors(
    feature_maps_hw=((38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)),
    scales=(0.1, 0.2, 0.375, 0.55, 0.725, 0.9, 1.075),
    aspect_ratios=((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,)),
)

SMALL = SsdPriors(
    feature_maps_hw=((6, 8), (3, 4)), scales=(0.2, 0.4, 0.8), aspect_ratios=((2.0,), (2.0, 3.0))
)


def make_spec(priors: SsdPriors = SMALL, classes: int = 3, **changes: object) -> DetectorSpec:
    return DetectorSpec(
        name="test",
        input=InputSpec(size_hw=(96, 128)),
        outputs=(
            OutputSpec(name="box_offsets", shape=(1, priors.count, 4), role="box_offsets"),
            OutputSpec(name="class_logits", shape=(1, priors.count, classes + 1), role="class_logits"),
        ),
        decoder=SsdDecoder(priors=priors, variances=VARIANCES),
        labels=tuple(f"class {index}" for index in range(classes)),
        **changes,
    )


def outputs_like_a_detectors(seed: int, spec: DetectorSpec) -> dict[str, np.ndarray]:
    """Background nearly everywhere, a few priors near and above the threshold, small offsets."""
    rng = np.random.default_rng(seed)
    count, classes = spec.output("class_logits").shape[1:]
    logits = rng.normal(0, 1, (1, count, classes)).astype(np.float32)
    logits[..., 0] += 5
    lively = rng.random(count) < 0.2
    logits[0, lively, 1 + rng.integers(classes - 1)] += rng.uniform(2, 9, lively.sum()).astype(np.float32)
    return {"box_offsets": rng.normal(0, 1.5, (1, count, 4)).astype(np.float32), "class_logits": logits}


def naive_candidates(outputs, spec: DetectorSpec, threshold: float):
    """Everything is decoded with float64 and torch's softmax, then thresholded."""
    scores = torch.softmax(torch.from_numpy(outputs["class_logits"][0]), dim=1).numpy()[:, 1:]
    priors = priors_cxcywh(spec.decoder.priors, spec.input.size_hw).astype(np.float64)
    offsets = outputs["box_offsets"][0].astype(np.float64)
    centre = priors[:, :2] + offsets[:, :2] * VARIANCES[0] * priors[:, 2:]
    size = priors[:, 2:] * np.exp(np.minimum(offsets[:, 2:] * VARIANCES[1], np.log(62.5)))
    corners = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    found = [(row, column) for row, column in np.ndindex(*scores.shape) if scores[row, column] > threshold]
    rows = [row for row, _ in found]
    return (
        corners[rows],
        np.array([scores[pair] for pair in found]),
        np.array([column for _, column in found]),
    )


def test_ssd300_has_8732_priors_in_the_published_parts() -> None:
    parts = [h * w * n for (h, w), n in zip(SSD300.feature_maps_hw, SSD300.per_cell, strict=True)]
    assert SSD300.per_cell == (4, 6, 6, 6, 4, 4)
    assert parts == [5776, 2166, 600, 150, 36, 4]
    assert SSD300.count == len(priors_cxcywh(SSD300, (300, 300))) == 8732


@pytest.mark.parametrize(
    ("priors", "size_hw"), [(SSD300, (300, 300)), (SMALL, (96, 128)), (SMALL, (100, 100))]
)
def test_priors_are_those_of_torchvisions_generator(priors: SsdPriors, size_hw: tuple[int, int]) -> None:
    ratios = [[int(r) for r in row] for row in priors.aspect_ratios]
    generator = DefaultBoxGenerator(ratios, scales=list(priors.scales), clip=False)
    images = ImageList(torch.zeros(1, 3, *size_hw), [size_hw])
    maps = [torch.zeros(1, 1, *hw) for hw in priors.feature_maps_hw]
    expected = generator(images, maps)[0].numpy()
    np.testing.assert_allclose(cxcywh_to_xyxy(priors_cxcywh(priors, size_hw)), expected, atol=1e-3)


def test_clipped_priors_lie_in_the_tensor_and_others_are_unchanged() -> None:
    whole = cxcywh_to_xyxy(priors_cxcywh(SSD300, (300, 300)))
    clipped = cxcywh_to_xyxy(priors_cxcywh(SSD300.model_copy(update={"clip": True}), (300, 300)))
    np.testing.assert_allclose(clipped, whole.clip(0, 300), atol=1e-3)


def test_priors_are_made_once_and_cannot_be_written() -> None:
    first = priors_cxcywh(SMALL, (96, 128))
    assert priors_cxcywh(SMALL.model_copy(), (96, 128)) is first
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 1


@given(st.integers(0, 2**32 - 1))
def test_offsets_of_boxes_return_to_the_boxes(seed: int) -> None:
    priors = priors_cxcywh(SMALL, (96, 128))
    rng = np.random.default_rng(seed)
    size = rng.uniform(1, 128, (len(priors), 2))
    boxes = np.concatenate([rng.uniform(0, 128, (len(priors), 2)), size], axis=1).astype(np.float32)
    found = decode_offsets(encode_offsets(boxes, priors, VARIANCES), priors, VARIANCES)
    np.testing.assert_allclose(found, cxcywh_to_xyxy(boxes), atol=1e-3)


@given(st.integers(0, 2**32 - 1))
def test_boxes_of_offsets_return_to_the_offsets(seed: int) -> None:
    priors = priors_cxcywh(SMALL, (96, 128))
    offsets = np.random.default_rng(seed).uniform(-4, 4, (len(priors), 4)).astype(np.float32)
    corners = decode_offsets(offsets, priors, VARIANCES)
    boxes = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)
    np.testing.assert_allclose(encode_offsets(boxes, priors, VARIANCES), offsets, atol=2e-3)


def test_offsets_of_zero_are_the_priors() -> None:
    priors = priors_cxcywh(SMALL, (96, 128))
    np.testing.assert_array_equal(
        decode_offsets(np.zeros_like(priors), priors, VARIANCES), cxcywh_to_xyxy(priors)
    )


def test_a_box_is_at_most_62_and_a_half_times_its_prior() -> None:
    priors = priors_cxcywh(SMALL, (96, 128))[:1]
    corners = decode_offsets(np.array([[0, 0, 1e9, 1e9]], np.float32), priors, VARIANCES)
    np.testing.assert_allclose(corners[:, 2:] - corners[:, :2], priors[:, 2:] * 62.5, rtol=1e-5)


@settings(max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 1e-9, 1e-3, 0.01, 0.4, 0.5, 0.9, 0.999, 1.0]),
    st.sampled_from([0.0, 100.0, -1e4, 1e6]),
)
def test_thresholding_first_gives_what_decoding_everything_gives(
    seed: int, threshold: float, level: float
) -> None:
    spec = make_spec()
    outputs = outputs_like_a_detectors(seed, spec)
    outputs["class_logits"] += np.float32(level)  # softmax does not see it, rounding does
    boxes, scores, class_ids, rows = candidates(outputs, spec, threshold)
    expected_boxes, expected_scores, expected_ids = naive_candidates(outputs, spec, threshold)
    # A score within rounding of the threshold may fall on either side.
    if len(scores) != len(expected_scores):
        every = torch.softmax(torch.from_numpy(outputs["class_logits"][0]), dim=1).numpy()[:, 1:]
        near = np.abs(every - threshold) <= 1e-6 * max(threshold, 1e-6)
        assert abs(len(scores) - len(expected_scores)) <= near.sum()
        return
    np.testing.assert_array_equal(class_ids, expected_ids)
    every = torch.softmax(torch.from_numpy(outputs["class_logits"][0]), dim=1).numpy()[:, 1:]
    np.testing.assert_allclose(scores, every[rows, class_ids], rtol=1e-5)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)
    np.testing.assert_allclose(boxes, expected_boxes, rtol=1e-5, atol=1e-3)


def test_every_class_above_the_threshold_is_a_candidate_of_its_own() -> None:
    spec = make_spec()
    outputs = outputs_like_a_detectors(0, spec)
    outputs["class_logits"][:] = [10, 0, 0, 0]
    outputs["class_logits"][0, 7] = [-10, 5, 5, 0]
    boxes, scores, class_ids, rows = candidates(outputs, spec, 0.4)
    assert class_ids.tolist() == [0, 1]
    assert rows.tolist() == [7, 7]
    np.testing.assert_allclose(scores, 0.5, atol=5e-3)
    np.testing.assert_array_equal(boxes[0], boxes[1])


def test_no_candidate_gives_empty_arrays_of_the_right_types() -> None:
    spec = make_spec()
    outputs = outputs_like_a_detectors(0, spec)
    outputs["class_logits"][..., 0] = 1e4
    found = decode(outputs, spec, Geometry.of((480, 640), spec.input))
    assert found.boxes_xyxy.shape == (0, 4)
    assert (found.boxes_xyxy.dtype, found.scores.dtype, found.class_ids.dtype) == (
        np.float32,
        np.float32,
        np.int64,
    )


EXTREMES = np.array(
    [0, 1, -1, 20, -20, 1e4, -1e4, 1e30, 1e37, -1e37, 3e38, -3e38, np.inf, -np.inf, np.nan], np.float32
)


@settings(max_examples=150)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.01, 0.4]),
    st.sampled_from(["stretch", "letterbox"]),
    st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
)
def test_no_output_gives_a_box_outside_the_image_or_a_score_outside_0_to_1(
    seed, threshold, resize, image_hw
) -> None:
    spec = make_spec()
    rng = np.random.default_rng(seed)
    outputs = outputs_like_a_detectors(seed, spec)
    for array in outputs.values():
        spoilt = rng.random(array.shape) < 0.1
        array[spoilt] = rng.choice(EXTREMES, int(spoilt.sum()))
    geometry = Geometry.of(image_hw, spec.input.model_copy(update={"resize": resize}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = decode(outputs, spec, geometry, score_threshold=threshold, limit=10_000)
    height, width = image_hw
    assert np.isfinite(found.boxes_xyxy).all()
    assert (found.boxes_xyxy >= 0).all()
    assert (found.boxes_xyxy <= np.array([width, height, width, height])).all()
    assert (found.boxes_xyxy[:, 2:] > found.boxes_xyxy[:, :2]).all()
    assert ((found.scores > threshold) & (found.scores <= 1)).all()
    assert set(found.class_ids.tolist()) <= {0, 1, 2}


def test_candidates_are_in_pixels_of_the_image() -> None:
    spec = make_spec()
    outputs = outputs_like_a_detectors(3, spec)
    geometry = Geometry.of((480, 1280), spec.input)
    in_tensor, _, _, rows = candidates(outputs, spec, spec.score_threshold)
    in_image = find_candidates(outputs, spec, geometry)
    expected = geometry.to_image(in_tensor).clip(0, [1280, 480, 1280, 480])
    np.testing.assert_allclose(in_image.boxes_xyxy, expected, atol=1e-3)
    np.testing.assert_array_equal(in_image.rows, rows)
