"""One image and what the references made of it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from edgedet import registry
from edgedet.bundle import Artifact, Bundle
from edgedet.data.dataset import LabelledImage
from edgedet.errors import BundleError
from edgedet.files import sha256_of
from edgedet.parity.view import View
from edgedet.pipeline import RuntimeLike
from edgedet.preprocess import preprocess
from edgedet.spec import CALIBRATED, DetectorSpec, QuantizationSpec


class QuantizedReferences:
    """The fake-quantized modules of the bundle's encodings, each opened once and shared.

    Attributes:
        bundle: Where they are rebuilt from.
        opened: Those of the artifacts that are compared.
        computes: What each of them does, equal for encodings that differ in their integers alone.
    """

    def __init__(self, bundle: Bundle, stack: ExitStack) -> None:
        self.bundle, self._stack = bundle, stack
        self._references: Any = None
        self._seen_before = 0
        self.opened: dict[QuantizationSpec, RuntimeLike] = {}
        self.computes: dict[QuantizationSpec, str] = {}

    def open(self, artifact: Artifact) -> QuantizationSpec | None:
        """Make the reference of an artifact ready; returns its key in `opened`, None for the float one."""
        key = artifact.quantization
        if artifact.precision not in CALIBRATED:
            return None
        if key is None:
            raise BundleError(
                f"{artifact.files[0].path} cannot be compared",
                got=f"an {artifact.precision} artifact without a word on how it was quantized",
                expected="its encoding, observer and calibration in bundle.json",
                fix=f"export again with --precision {artifact.precision}",
            )
        if key not in self.opened:
            self._references = self._references or registry.REFERENCES.load("int8")(self.bundle)
            reference = self._references.open(artifact)
            self._stack.callback(reference.close)
            self.opened[key], self.computes[key] = reference, reference.computes
        return key

    def look_at(self, image: LabelledImage) -> None:
        """Count an image that INT8 was calibrated on."""
        known = self._references.calibrated_on if self._references is not None else ()
        if known and image.path.is_file():
            self._seen_before += sha256_of(image.path) in known

    def warning(self, images: int) -> str:
        """What a reader should know of the images, or ""."""
        if not self._seen_before:
            return ""
        return (
            f"{self._seen_before} of {images} images are among those that INT8 was calibrated on, which "
            "flatters it; judge it on others: --split, or calibrate with --split"
        )


class Frame:
    """One image, its input tensor as the bundle's spec asks for it, and what the references made of it.

    Attributes:
        number: Of the image among those that are compared, from 0.
    """

    def __init__(
        self,
        number: int,
        image: LabelledImage,
        spec: DetectorSpec,
        reference: RuntimeLike,
        fakes: QuantizedReferences,
    ) -> None:
        self.number, self.image, self.spec = number, image, spec
        fakes.look_at(image)
        self.tensor, self.geometry = preprocess(image.image_bgr, spec.input)
        self.float_view = self._view(reference)
        made: dict[str, View] = {}
        for key, what in fakes.computes.items():
            if what not in made:
                made[what] = self._view(fakes.opened[key], for_map=False)
        self.fake_views = {key: made[what] for key, what in fakes.computes.items()}

    @property
    def found(self) -> int:
        """Objects that the float detector finds."""
        return len(self.float_view.detections.above(self.spec.score_threshold)[: self.spec.max_detections])

    def _view(self, runtime: RuntimeLike, *, for_map: bool = True) -> View:
        return View.of(runtime, self.tensor, self.spec, self.geometry, for_map=for_map)
