"""A bundle whose runtimes are computed from ground truth, so that faults can be planted in any stage.

The point of these tests is the comparison, not a runtime: a fake recognises an image by its tensor and
returns raw SSD outputs that decode to the image's boxes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from edgedet import registry
from edgedet.boxes import Floats, cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from edgedet.bundle import Artifact, Bundle, FileEntry, Manifest
from edgedet.data.dataset import LabelledImage, Summary
from edgedet.decode.ssd import encode_offsets, priors_cxcywh
from edgedet.preprocess import preprocess
from edgedet.spec import (
    DetectorSpec,
    InputSpec,
    OutputSpec,
    QuantizationSpec,
    SsdDecoder,
    SsdPriors,
    TensorSpec,
)

sys.path.insert(0, str(Path(__file__).parent))  # for changed_artifact

LABELS = ("circle", "square", "cross")
IMAGES = 10
SUFFIXES = {"eager": "safetensors", "ort": "onnx", "openvino": "xml", "tflite": "tflite"}

Fault = Callable[[dict[str, Floats]], dict[str, Floats]]


class Images:
    """A data set in memory."""

    root, format, split, labels = Path("in memory"), "coco", "test", LABELS

    def __init__(self, images: list[LabelledImage]) -> None:
        self.images = images
        self.image_ids = [image.image_id for image in images]
        self.summary = Summary(images=len(images))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> LabelledImage:
        return self.images[index]

    def __iter__(self):
        return iter(self.images)


class FakeRuntime:
    """Raw outputs from the boxes of the image that the tensor was made of, with a fault."""

    name = "fake"

    def __init__(self, images: list[LabelledImage], spec: DetectorSpec, fault: Fault) -> None:
        self.spec, self._fault = spec, fault
        self.inputs: tuple[TensorSpec, ...] = (spec.input.tensor,)
        self.outputs: tuple[TensorSpec, ...] = spec.outputs
        self._images = images
        self._prints = np.stack([_fingerprint(preprocess(i.image_bgr, spec.input)[0]) for i in images])
        self.runs, self.closed, self.computes = 0, False, ""

    def run(self, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        self.runs += 1
        nearest = int((self._prints @ _fingerprint(feeds[self.spec.input.name])).argmax())
        return self._fault(raw_outputs(self._images[nearest], self.spec, nearest))

    def close(self) -> None:
        self.closed = True


def _fingerprint(tensor: Floats) -> Floats:
    flat = tensor.reshape(-1) - tensor.mean()
    return flat / np.linalg.norm(flat)


def raw_outputs(image: LabelledImage, spec: DetectorSpec, seed: int) -> dict[str, Floats]:
    """Outputs of a head that finds most of the boxes, with scores from 0 to 0.99."""
    rng = np.random.default_rng(seed)
    priors = priors_cxcywh(spec.decoder.priors, spec.input.size_hw)
    offsets = rng.normal(0, 0.1, (len(priors), 4)).astype(np.float32)
    logits = rng.normal(0, 0.1, (len(priors), len(spec.labels) + 1)).astype(np.float32)
    logits[:, 0] += 6
    scale = np.array(spec.input.size_hw[::-1] * 2, np.float32) / np.array(
        image.image_bgr.shape[1::-1] * 2, np.float32
    )
    for box, class_id in zip(image.boxes_xyxy * scale, image.class_ids, strict=True):
        best = int(iou(cxcywh_to_xyxy(priors), box[None])[:, 0].argmax())
        offsets[best] = encode_offsets(xyxy_to_cxcywh(box[None]), priors[[best]], (0.1, 0.2))[0]
        logits[best, 1 + class_id] = logits[best, 0] + rng.uniform(-6, 5)
    return {"box_offsets": offsets[None], "class_logits": logits[None]}


@dataclass
class Workbench:
    """A bundle with a fake behind every artifact.

    Attributes:
        faults: A fault by (runtime, precision); "reference" stands for the fake-quantized module, of
            every encoding of a precision or of one encoding.
        specs: Another spec inside the artifact, likewise.
        missing: Runtimes that are not installed.
        opened: Every fake that was opened, by the same keys.
        calibrated_on: sha256 of the calibration images.
        computes: What all fake-quantized modules do; by default each encoding's does something else.
    """

    bundle: Bundle
    data: Images
    faults: dict[tuple[str, str], Fault] = field(default_factory=dict)
    specs: dict[tuple[str, str], DetectorSpec] = field(default_factory=dict)
    missing: dict[str, Exception] = field(default_factory=dict)
    opened: dict[tuple[str, str], list[FakeRuntime]] = field(default_factory=dict)
    calibrated_on: set[str] = field(default_factory=set)
    computes: str = ""

    def open(self, runtime: str, precision: str) -> FakeRuntime:
        if runtime in self.missing:
            raise self.missing[runtime]
        key = (runtime, precision)
        fault = self.faults.get(key, lambda outputs: outputs)
        fake = FakeRuntime(self.data.images, self.specs.get(key) or self._spec_of(*key), fault)
        self.opened.setdefault(key, []).append(fake)
        return fake

    def _spec_of(self, runtime: str, precision: str) -> DetectorSpec:
        if runtime == "reference":
            return self.bundle.spec
        return self.bundle.spec_of(self.bundle.artifact(runtime, precision))


def noisy(name: str, amount: float) -> Fault:
    """Add noise to one output, the same in every run."""

    def fault(outputs: dict[str, Floats]) -> dict[str, Floats]:
        noise = np.random.default_rng(5).normal(0, amount, outputs[name].shape).astype(np.float32)
        return {**outputs, name: outputs[name] + noise}

    return fault


@pytest.fixture(name="noisy")
def _noisy() -> Callable[[str, float], Fault]:
    return noisy


def make_images(labels: tuple[str, ...]) -> list[LabelledImage]:
    """Images with boxes in their places and noise for pixels, which a fake can tell apart."""
    images = []
    for number in range(IMAGES):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)
        centres = np.array([[20, 25], [65, 25], [100, 60], [30, 70]], np.float32) + rng.uniform(-4, 4, (4, 2))
        half = rng.uniform(9, 17, (4, 2))
        boxes = np.concatenate([centres - half, centres + half], axis=1).astype(np.float32)
        class_ids = rng.integers(0, len(labels), 4)
        images.append(
            LabelledImage(f"images/{number}.jpg", Path("x"), pixels, boxes, class_ids, np.zeros(4, bool))
        )
    return images


@pytest.fixture
def workbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    priors = SsdPriors(
        feature_maps_hw=((8, 8), (4, 4)), scales=(0.2, 0.35, 0.6), aspect_ratios=((2.0,), (2.0,))
    )
    spec = DetectorSpec(
        name="fake",
        input=InputSpec(size_hw=(64, 64)),
        outputs=(
            OutputSpec(name="box_offsets", shape=(1, priors.count, 4), role="box_offsets"),
            OutputSpec(name="class_logits", shape=(1, priors.count, 4), role="class_logits"),
        ),
        decoder=SsdDecoder(priors=priors),
        labels=LABELS,
    )
    artifacts = [artifact(tmp_path, "eager", "fp32")]
    artifacts += [
        artifact(tmp_path, name, precision) for precision in ("fp32", "int8") for name in ("ort", "openvino")
    ]
    bench = Workbench(
        Bundle(tmp_path, Manifest(spec=spec, artifacts=tuple(artifacts))), Images(make_images(LABELS))
    )
    # The fake-quantized module differs from float as quantization does, and INT8 artifacts like it.
    quantized = noisy("box_offsets", 0.01)
    bench.faults = {
        ("reference", "int8"): quantized,
        ("ort", "int8"): quantized,
        ("openvino", "int8"): quantized,
    }

    def load_runtime(name: str):
        return lambda path, **_: bench.open(name, path.parent.name)

    monkeypatch.setattr(registry.RUNTIMES, "load", load_runtime)

    class References:
        """The fake-quantized modules of a bundle."""

        calibrated_on = bench.calibrated_on

        def __init__(self, _bundle: Bundle) -> None:
            pass

        def open(self, artifact: Artifact) -> FakeRuntime:
            fake = bench.open("reference", artifact.precision)
            assert artifact.quantization is not None
            encoding = artifact.quantization.encoding
            fake.computes = bench.computes or encoding
            fake._fault = bench.faults.get(("reference", encoding), fake._fault)
            return fake

    monkeypatch.setattr(registry.REFERENCES, "load", lambda _: References)
    return bench


def artifact(root: Path, runtime: str, precision: str) -> Artifact:
    """An entry of the manifest with a real file, whose contents no fake reads."""
    path = root / precision / f"model.{SUFFIXES[runtime]}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"artifact")
    quantization = QuantizationSpec(encoding="x86", observer="mse", calibration_sha256="0" * 64)
    return Artifact(
        target=runtime,
        precision=precision,
        runtime=runtime,
        files=(FileEntry.of(root, path),),
        quantization=quantization if precision == "int8" else None,
    )
