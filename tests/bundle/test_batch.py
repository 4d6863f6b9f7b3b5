"""Bundles with artifacts for several images at once: who sees them, and how they are opened."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import edgedet
from edgedet.bundle import Artifact, Bundle, Manifest
from edgedet.data import open_dataset
from edgedet.errors import BundleError, UsageError
from edgedet.preprocess import Image, preprocess, preprocess_batch
from edgedet.selection import select
from edgedet.spec import DetectorSpec


@pytest.fixture(scope="module")
def images() -> list[Image]:
    """Two images of different sizes, with different objects."""
    dataset = open_dataset("builtin", split="test")
    return [image.image_bgr for image, _ in zip(dataset, range(2), strict=False)]


@pytest.mark.parametrize(
    ("runtime", "bundle"),
    [
        ("openvino", "batched_bundle"),
        ("ort", "batched_bundle"),
        pytest.param("tflite", "batched_tflite_bundle", marks=pytest.mark.slow),
    ],
)
def test_a_batch_finds_in_each_image_what_is_found_in_it_alone(
    request: pytest.FixtureRequest, images: list[Image], runtime: str, bundle: str
) -> None:
    root = request.getfixturevalue(bundle).root
    with edgedet.load(root, runtime, "fp32") as one, edgedet.load(root, runtime, "fp32", batch=2) as two:
        alone = [one(image) for image in images]
        found = two.detect_batch(images)
        turned = two.detect_batch(images[::-1])
        (single,) = one.detect_batch(images[:1])
    assert [len(detections) > 0 for detections in alone] == [True, True]
    assert alone[0].boxes_xyxy.shape != alone[1].boxes_xyxy.shape or not np.allclose(
        alone[0].boxes_xyxy, alone[1].boxes_xyxy
    )
    for expected, *others in zip([*alone], found, turned[::-1], strict=True):
        for other in others:
            np.testing.assert_allclose(other.boxes_xyxy, expected.boxes_xyxy, atol=0.01)
            np.testing.assert_allclose(other.scores, expected.scores, atol=1e-4)
            np.testing.assert_array_equal(other.class_ids, expected.class_ids)
    np.testing.assert_array_equal(single.boxes_xyxy, alone[0].boxes_xyxy)


def test_a_number_of_images_that_is_not_the_batch_is_refused(
    batched_bundle: Bundle, images: list[Image]
) -> None:
    with edgedet.load(batched_bundle.root, "ort", "fp32", batch=2) as two:
        with pytest.raises(UsageError, match="got one image; expected 2 in each inference"):
            two(images[0])
        for count in (0, 1, 3):
            with pytest.raises(UsageError, match=f"got {count}; expected 2 in each inference"):
                two.detect_batch([images[0]] * count)


def test_images_are_written_into_their_places_of_one_buffer(
    batched_bundle: Bundle, images: list[Image]
) -> None:
    spec = batched_bundle.spec.with_batch(2).input
    buffer = np.empty(spec.tensor.shape, np.float32)
    tensor, geometries = preprocess_batch(images, spec, buffer)
    assert tensor is buffer
    for place, image in enumerate(images):
        expected, geometry = preprocess(image, batched_bundle.spec.input)
        np.testing.assert_array_equal(tensor[place], expected[0])
        assert geometries[place] == geometry


def test_a_bundle_is_opened_for_one_image_unless_a_batch_is_named(batched_bundle: Bundle) -> None:
    with edgedet.load(batched_bundle.root) as detector:
        assert detector.spec.input.batch == 1
    with edgedet.load(batched_bundle.root, precision="int8", batch=2) as detector:
        assert (detector.spec.input.batch, detector.spec.precision) == (2, "int8")
    with pytest.raises(UsageError, match="has no artifact for ort batch 8"):
        edgedet.load(batched_bundle.root, runtime="ort", batch=8)


def test_a_lone_file_of_a_batch_is_refused_where_one_image_is_looked_at(batched_bundle: Bundle) -> None:
    path = batched_bundle.root / "fp32" / "batch2" / "model.onnx"
    with pytest.raises(UsageError, match="got an artifact for a batch of 2; expected one for a batch of 1"):
        edgedet.load(path)
    for batch in (2, None):
        with edgedet.load(path, batch=batch) as detector:
            assert detector.spec == batched_bundle.spec_of(batched_bundle.artifact("ort", "fp32", 2))


def names(artifacts: list[Artifact]) -> list[tuple[str, str, int]]:
    return [(artifact.runtime, artifact.precision, artifact.batch) for artifact in artifacts]


def test_a_selection_is_of_one_image_unless_batches_are_asked_for(batched_bundle: Bundle) -> None:
    everything, skipped = select(batched_bundle, None, None)
    assert {artifact.batch for artifact in everything} == {1}
    assert len(everything) == 5
    assert skipped == []
    artifacts, skipped = select(batched_bundle, ["ort", "eager"], ["fp32"], batches=(2, 1))
    assert names(artifacts) == [("ort", "fp32", 2), ("ort", "fp32", 1), ("eager", "fp32", 1)]
    assert [(one.runtime, one.reason) for one in skipped] == [("eager", "in a batch of 2, not in the bundle")]
    with pytest.raises(UsageError, match=r"no artifact for that batch; got 4; .* --batch 1,2,4"):
        select(batched_bundle, None, None, batches=(1, 4))


def test_manifests_and_specs_without_batches_are_of_one_image(batched_bundle: Bundle) -> None:
    manifest = batched_bundle.manifest.model_dump(mode="json")
    manifest["artifacts"] = [one for one in manifest["artifacts"] if one["batch"] == 1]
    for one in manifest["artifacts"]:
        del one["batch"]
    del manifest["spec"]["input"]["batch"]
    read = Manifest.model_validate(manifest)
    assert {artifact.batch for artifact in read.artifacts} == {1}
    assert read.spec == batched_bundle.spec


@pytest.mark.parametrize("batch", [0, 257, -1])
def test_a_spec_of_a_batch_that_cannot_be_is_refused(batched_bundle: Bundle, batch: int) -> None:
    with pytest.raises(BundleError, match=r"input\.batch"):
        DetectorSpec.from_json(batched_bundle.spec.with_batch(batch).to_json(), source="here")


def test_outputs_of_another_batch_than_the_input_s_are_refused(batched_bundle: Bundle) -> None:
    images = batched_bundle.spec.input.model_copy(update={"batch": 2})
    mixed = batched_bundle.spec.model_copy(update={"input": images})
    with pytest.raises(BundleError, match=r"need outputs .*\(2, 5456, 4\)"):
        DetectorSpec.from_json(mixed.to_json(), source="here")


def test_parity_refuses_a_file_of_another_batch_than_the_manifest_says(
    batched_bundle: Bundle, tmp_path: Path
) -> None:
    from edgedet.parity import run_parity

    root = tmp_path / "bundle"
    shutil.copytree(batched_bundle.root, root)
    lying = [
        artifact.model_copy(update={"batch": 1})
        for artifact in batched_bundle.manifest.artifacts
        if artifact.runtime == "eager" or (artifact.runtime, artifact.batch) == ("ort", 2)
    ]
    manifest = batched_bundle.manifest.model_copy(update={"artifacts": tuple(lying)})
    (root / "bundle.json").write_text(manifest.model_dump_json())
    with pytest.raises(BundleError, match="got an artifact for a batch of 2; expected a batch of 1"):
        run_parity(edgedet.open_bundle(root), open_dataset("builtin", split="test"))
