"""Seven faults in a trained detector on photographs, each named by the stage of the data that it is in.

A fault is planted in one of two places: in the spec that the artifact carries, which parity follows, or
behind a right spec, in the artifact's own graph or in the code of a device that preprocesses, decodes and
suppresses by itself. What needs INT8 is marked slow, because its bundle takes minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changed_artifact import double_weight_scale, with_changed_artifact, zero_bias

from edgedet import registry
from edgedet.bundle import MANIFEST, Bundle, FileEntry, open_bundle
from edgedet.data import Dataset, open_dataset
from edgedet.decode import find_candidates, suppress
from edgedet.parity import ParityRow, opened, run_parity, view
from edgedet.preprocess import Geometry, preprocess
from edgedet.spec import DetectorSpec, InputSpec

IMAGES = 8
IOU_THRESHOLD = 0.7
# An artifact in INT8 may lose or gain 3 %.
INT8_IOU_THRESHOLD = 0.95


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and what parity must say of it.

    Attributes:
        name: For readers.
        changes: Of the part of the spec, or what a device's code has instead.
        stage: The first that differs.
        words: Of the sentences that name the cause.
    """

    name: str
    changes: dict[str, Any]
    stage: str
    words: tuple[str, ...]


# One place each for 1, 2, 6 and 7; a spec has no offset of letterboxing, so 3 can only be in code.
IN_THE_SPEC = [
    Fault(
        "1 mean and std",
        {"mean": (127.5, 127.5, 127.5), "std": (127.5, 127.5, 127.5)},
        "input tensor",
        ("in input.mean: (127.5,", "in input.std: (127.5,", "mean or std"),
    ),
    Fault("2 BGR for RGB", {"colour": "bgr"}, "input tensor", ("in input.colour: 'bgr', expected 'rgb'",)),
    Fault(
        "6 aspect of anchors",
        {"decoder": "squarer"},
        "decoded boxes",
        ("in decoder.priors.aspect_ratios: ((1.6,), (1.6,), (1.6, 2.4", "look at decoding"),
    ),
    Fault(
        "7 threshold of NMS",
        {"iou_threshold": IOU_THRESHOLD},
        "detections",
        ("in iou_threshold: 0.7, expected 0.55", "look at suppression"),
    ),
]

IN_THE_CODE = [
    Fault(
        "1 mean and std",
        {
            "preprocess": lambda image, spec: preprocess(
                image, spec.model_copy(update={"std": (1.0, 1.0, 1.0)})
            )
        },
        "input tensor",
        ("mean or std",),
    ),
    Fault(
        "2 BGR for RGB",
        {"preprocess": lambda image, spec: preprocess(np.ascontiguousarray(image[..., ::-1]), spec)},
        "input tensor",
        ("BGR for RGB",),
    ),
    Fault(
        "3 letterbox offset",
        {"preprocess": lambda image, spec: one_pixel_lower(*preprocess(image, spec))},
        "input tensor",
        ("the same content lies 1 pixel further down", "letterboxing"),
    ),
    Fault(
        "3 letterbox offset, on the way back alone",
        {"preprocess": lambda image, spec: (preprocess(image, spec)[0], lowered(preprocess(image, spec)[1]))},
        "decoded boxes",
        ("look at decoding", "the way back to the image"),
    ),
    Fault(
        "6 aspect of anchors",
        {"find_candidates": lambda outputs, spec, *rest: find_candidates(outputs, with_ratios(spec), *rest)},
        "decoded boxes",
        ("look at decoding (priors",),
    ),
    Fault(
        "7 threshold of NMS",
        {"suppress": lambda found, spec, **rest: suppress(found, spec, IOU_THRESHOLD, **rest)},
        "detections",
        ("look at suppression (IoU threshold",),
    ),
]


def lowered(geometry: Geometry) -> Geometry:
    top, left = geometry.offset_yx
    return Geometry(geometry.image_hw, geometry.content_hw, (top + 1, left))


def one_pixel_lower(tensor, geometry: Geometry):
    """What a preprocessing gives whose padding has one more row above and one less below."""
    return np.ascontiguousarray(np.roll(tensor, 1, axis=2)), lowered(geometry)


def with_ratios(spec: DetectorSpec) -> DetectorSpec:
    priors = spec.decoder.priors
    ratios = tuple(tuple(0.8 * ratio for ratio in one) for one in priors.aspect_ratios)
    priors = priors.model_copy(update={"aspect_ratios": ratios})
    return spec.model_copy(update={"decoder": spec.decoder.model_copy(update={"priors": priors})})


class DeviceInput(InputSpec):
    """Marks the spec of an artifact whose device does all by itself; it says what the bundle's says."""


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, Any]], None]:
    """Gives a runtime's artifacts code of their own in the place of functions that parity calls."""

    def plant(runtime: str, code: dict[str, Any]) -> None:
        load = registry.RUNTIMES.load

        def marked(name: str):
            def opened(path: Path, **options: Any):
                found = load(name)(path, **options)
                if name == runtime:
                    own = DeviceInput(**found.spec.input.model_dump())
                    found.spec = found.spec.model_copy(update={"input": own})
                return found

            return opened

        monkeypatch.setattr(registry.RUNTIMES, "load", marked)
        for name, faulty in code.items():
            module = opened if name == "preprocess" else view
            monkeypatch.setattr(module, name, for_device(getattr(module, name), faulty))

    return plant


def for_device(right, faulty):
    """A function that is the faulty one where its second argument is a device's spec or input."""

    def chosen(first, spec, *rest, **named):
        is_device = isinstance(getattr(spec, "input", spec), DeviceInput)
        return (faulty if is_device else right)(first, spec, *rest, **named)

    return chosen


@pytest.fixture(scope="session")
def photographs(test_data: Path) -> Dataset:
    return open_dataset(test_data / "data" / "bccd", "test")


@pytest.fixture(scope="session")
def letterbox_bundle(bccd_fp32_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same detector with images letterboxed, in its checkpoint, its ONNX and its manifest."""
    from edgedet.models import load_checkpoint, save_checkpoint
    from edgedet_export.metadata import embed_onnx

    folder = tmp_path_factory.mktemp("letterbox")
    artifacts = []
    manifest = bccd_fp32_bundle.manifest
    letterboxed = manifest.spec.input.model_copy(update={"resize": "letterbox"})
    spec = manifest.spec.model_copy(update={"input": letterboxed})
    for artifact in manifest.artifacts:
        source = bccd_fp32_bundle.path_of(artifact)
        path = folder / artifact.files[0].path
        path.parent.mkdir(exist_ok=True)
        if artifact.runtime == "eager":
            detector = load_checkpoint(source)
            detector.config = detector.config.model_copy(update={"input": letterboxed})
            save_checkpoint(path, detector)
        else:
            path.write_bytes(source.read_bytes())
            embed_onnx(path, spec)
        artifacts.append(artifact.model_copy(update={"files": (FileEntry.of(folder, path),)}))
    changed = manifest.model_copy(update={"spec": spec, "artifacts": tuple(artifacts)})
    (folder / MANIFEST).write_text(changed.model_dump_json())
    return open_bundle(folder)


def parity_of(bundle: Bundle, data: Dataset, runtime: str = "ort", precision: str = "fp32") -> ParityRow:
    (row,) = run_parity(bundle, data, [runtime], [precision], limit=IMAGES).rows
    return row


def is_named(row: ParityRow, fault: Fault) -> bool:
    """Whether the stage is right, and the first sentences, which a reader reads, have the words."""
    missing = [words for words in fault.words if not any(words in reason for reason in row.reasons[:3])]
    assert not missing, row.reasons
    return row.first_stage_over_budget == fault.stage and not row.passed


def before(stage: str) -> set[str]:
    """Stages that a fault of this one must leave alone."""
    stages = ["input tensor", "layers", "raw outputs", "decoded boxes", "detections"]
    return set(stages[: stages.index(stage)])


def test_artifacts_without_a_fault_pass_be_it_by_code_of_their_own(
    bccd_fp32_bundle: Bundle, letterbox_bundle: Bundle, photographs: Dataset, device
) -> None:
    row = parity_of(bccd_fp32_bundle, photographs)
    assert row.passed, row.reasons
    assert row.matched > 50
    device("ort", {"preprocess": preprocess, "find_candidates": find_candidates, "suppress": suppress})
    row = parity_of(letterbox_bundle, photographs)
    assert row.passed, row.reasons
    assert row.matched > 50


@pytest.mark.parametrize("fault", IN_THE_SPEC, ids=lambda fault: fault.name)
def test_a_wrong_field_of_the_embedded_spec_is_named_at_the_stage_that_it_governs(
    fault: Fault, bccd_fp32_bundle: Bundle, photographs: Dataset, tmp_path: Path
) -> None:
    from edgedet_export.metadata import embed_onnx

    spec = bccd_fp32_bundle.spec_of(bccd_fp32_bundle.artifact("ort", "fp32"))
    if "decoder" in fault.changes:
        wrong = with_ratios(spec)
    elif "iou_threshold" in fault.changes:
        wrong = spec.model_copy(update=fault.changes)
    else:
        wrong = spec.model_copy(update={"input": spec.input.model_copy(update=fault.changes)})
    bundle = with_changed_artifact(
        bccd_fp32_bundle, tmp_path / "changed", "ort", "fp32", lambda path: embed_onnx(path, wrong)
    )
    row = parity_of(bundle, photographs)
    assert is_named(row, fault)
    assert not before(fault.stage).intersection(row.stages_over_budget)
    if fault.stage == "input tensor":
        assert {image.first_stage_over_budget for image in row.differing_images} <= {fault.stage, None}


@pytest.mark.parametrize("fault", IN_THE_CODE, ids=lambda fault: fault.name)
def test_a_fault_in_the_code_behind_a_right_spec_is_named_at_its_stage(
    fault: Fault, letterbox_bundle: Bundle, photographs: Dataset, device
) -> None:
    device("ort", fault.changes)
    row = parity_of(letterbox_bundle, photographs)
    assert is_named(row, fault)
    assert not before(fault.stage).intersection(row.stages_over_budget)
    assert "the artifact's own spec" not in "".join(row.reasons)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "change", "label"),
    [
        pytest.param("ort", double_weight_scale, "backbone.blocks.3.0.conv_pwl (conv2d_20)", id="4 scale"),
        pytest.param("tflite", zero_bias, "backbone.blocks.2.0.conv_dw (hardtanh_7)", id="5 bias"),
    ],
)
def test_a_fault_in_one_layer_of_an_int8_graph_is_named_by_that_layer(
    runtime: str, change, label: str, bccd_bundle: Bundle, photographs: Dataset, tmp_path: Path
) -> None:
    whole = parity_of(bccd_bundle, photographs, runtime, "int8")
    assert whole.passed, whole.reasons
    row = parity_of(
        with_changed_artifact(bccd_bundle, tmp_path / "changed", runtime, "int8", change),
        photographs,
        runtime,
        "int8",
    )
    assert row.stages_over_budget[:2] == ("layers", "raw outputs")
    assert row.reasons[0].startswith(f"{label} is the first layer that the runtime computes differently")


@pytest.mark.slow
def test_int8_says_whether_suppression_or_quantization_lost_objects(
    bccd_bundle: Bundle, photographs: Dataset, device
) -> None:
    loose = {"suppress": lambda found, spec, **rest: suppress(found, spec, INT8_IOU_THRESHOLD, **rest)}
    device("ort", loose)
    row = parity_of(bccd_bundle, photographs, "ort", "int8")
    assert row.first_stage_over_budget == "detections"
    assert "look at suppression" in row.reasons[0]
    assert "quantization costs" not in row.reasons[0]
