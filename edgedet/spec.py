"""What a runtime's user must know of a detector, and nothing else.

A `DetectorSpec` travels inside every artifact as JSON, so that a lone file can be run. Sizes are `(height,
width)`; mean and standard deviation are in pixel units of 0..255 and in the colour order of the input.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgedet.errors import BundleError

SCHEMA_VERSION: Final = 1

DType = Literal["float32", "float16", "uint8", "int8", "int32", "int64"]
# The part behind "int8-" says what activations are where they are not int8: float, or int16.
Precision = Literal["fp32", "fp16", "int8", "int8-a16", "int8-dynamic"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int8-a16", "int8-dynamic")
# Those whose activations have ranges that were seen on images; a fake-quantized graph is their reference.
CALIBRATED: frozenset[Precision] = frozenset({"int8", "int8-a16"})


# A spec comes from files of others; these bounds keep its priors under 100 MB, and its input small enough to
# be allocated.
MOST_IMAGES: Final = 256
Batch = Annotated[int, Field(ge=1, le=MOST_IMAGES)]
MapSide = Annotated[int, Field(gt=0, le=1024)]
_MOST_PRIORS = 4_000_000


class Value(BaseModel):
    """Base of everything that touches disk: frozen, and refusing unknown keys and non-finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def first_problem(exc: ValidationError) -> str:
    """Where the first thing that does not validate is, and what is wrong with it."""
    first = exc.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the document'}: {problem_text(first['msg'])}"


def problem_text(message: str) -> str:
    """What is wrong, as pydantic says it or as a validator of ours does."""
    return message.removeprefix("Value error, ")


def _check_name(name: str) -> str:
    if name in ("", ".", "..") or not name.isprintable() or set("/\\") & set(name):
        raise ValueError(f"a detector's name is a plain file name, got {name!r}")
    return name


def _check_labels(labels: tuple[str, ...]) -> tuple[str, ...]:
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    if repeated:
        raise ValueError(f"every label is there once, got {', '.join(map(repr, repeated[:10]))} more often")
    return labels


# What files and folders are named after: no separators, no control characters, neither "." nor "..".
DetectorName = Annotated[str, AfterValidator(_check_name)]
Labels = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_check_labels)]


class TensorSpec(Value):
    """One named tensor; `shape` is fixed and holds the batch in front."""

    name: str
    shape: tuple[int, ...]
    dtype: DType = "float32"


class InputSpec(Value):
    """The input tensor and how an image becomes it: resize, colour order, `(pixel - mean) / std`, layout.

    The layout is that of the tensor which every runtime of this project is given. A .tflite file itself takes
    `[1, h, w, 3]`.

    OpenCV computes "linear" with other instructions on other processors, and rounds differently there;
    "linear_exact" gives the same pixels everywhere. `batch` is how many images one inference takes.
    """

    name: str = "images"
    batch: Batch = 1
    size_hw: tuple[Annotated[int, Field(gt=0, le=8192)], Annotated[int, Field(gt=0, le=8192)]]
    colour: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["nchw"] = "nchw"
    dtype: Literal["float32"] = "float32"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[
        Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]
    ] = (58.395, 57.12, 57.375)
    resize: Literal["stretch", "letterbox"] = "stretch"
    interpolation: Literal["nearest", "linear", "linear_exact", "area"] = "linear_exact"
    pad_value: Annotated[int, Field(ge=0, le=255)] = 114

    @property
    def tensor(self) -> TensorSpec:
        """The tensor as a runtime sees it, `[batch, 3, height, width]`."""
        return TensorSpec(name=self.name, shape=(self.batch, 3, *self.size_hw), dtype=self.dtype)


class OutputSpec(TensorSpec):
    """One output tensor and its meaning to the decoder."""

    role: Literal["box_offsets", "class_logits"]


class SsdPriors(Value):
    """Default boxes of SSD: per feature map a scale, the next scale, and aspect ratios.

    Each cell has, in this order: ratio 1 at `scales[k]`; ratio 1 at sqrt(scales[k] * scales[k + 1]); then for
    every ratio r the boxes of ratio r and 1 / r at `scales[k]` (Liu et al., SSD, ECCV 2016, section 2.2).
    Scales are fractions of the input's side; `scales` is one longer than `feature_maps_hw`.
    """

    feature_maps_hw: tuple[tuple[MapSide, MapSide], ...] = Field(min_length=1, max_length=16)
    scales: tuple[Annotated[float, Field(gt=0, le=2)], ...]
    aspect_ratios: tuple[tuple[Annotated[float, Field(gt=1)], ...], ...]
    clip: bool = False

    @model_validator(mode="after")
    def _lengths_agree(self) -> SsdPriors:
        maps = len(self.feature_maps_hw)
        if len(self.scales) != maps + 1 or len(self.aspect_ratios) != maps:
            raise ValueError(
                f"{maps} feature maps need {maps + 1} scales and {maps} lists of aspect ratios; "
                f"got {len(self.scales)} and {len(self.aspect_ratios)}"
            )
        if self.count > _MOST_PRIORS:
            raise ValueError(f"at most {_MOST_PRIORS} priors, got {self.count}")
        return self

    @property
    def per_cell(self) -> tuple[int, ...]:
        """Priors of one cell, for each feature map."""
        return tuple(2 + 2 * len(ratios) for ratios in self.aspect_ratios)

    @property
    def count(self) -> int:
        """Priors in all: SSD300's configuration has 8732."""
        return sum(math.prod(hw) * n for hw, n in zip(self.feature_maps_hw, self.per_cell, strict=True))


class SsdDecoder(Value):
    """Parameters of `edgedet.decode.ssd`: softmax over background and labels, offsets against priors."""

    family: Literal["ssd"] = "ssd"
    priors: SsdPriors
    variances: tuple[float, float] = (0.1, 0.2)


DecoderSpec = SsdDecoder  # becomes a union discriminated by `family` with the second head family


class QuantizationSpec(Value):
    """How a calibrated artifact was quantized.

    Attributes:
        encoding: The terms that its ranges were written in.
        observer: How they were chosen.
        granularity: Of the weights' scales.
        float_layers: Patterns of layers that stayed float.
        pair_safe: No sum of the artifact can overflow on x86 processors without VNNI.
        calibration_sha256: Of the calibration file.
    """

    encoding: str
    observer: str
    granularity: Literal["per_channel", "per_tensor"] = "per_channel"
    float_layers: tuple[str, ...] = ()
    pair_safe: bool = False
    calibration_sha256: str


class Provenance(Value):
    """Where a detector came from."""

    checkpoint_sha256: str = ""
    trained_on: str = ""
    tools: dict[str, str] = Field(default_factory=dict)


class DetectorSpec(Value):
    """All that is needed to feed a detector and read its outputs."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: DetectorName
    input: InputSpec
    outputs: tuple[OutputSpec, ...] = Field(min_length=1)
    decoder: DecoderSpec
    labels: Labels
    precision: Precision = "fp32"
    score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.4
    iou_threshold: Annotated[float, Field(ge=0, le=1)] = 0.45
    max_detections: Annotated[int, Field(gt=0)] = 100
    quantization: QuantizationSpec | None = None
    provenance: Provenance = Provenance()

    @model_validator(mode="after")
    def _outputs_fit_the_decoder(self) -> DetectorSpec:
        priors = self.decoder.priors.count
        batch, logits = self.input.batch, len(self.labels) + 1
        expected = {"box_offsets": (batch, priors, 4), "class_logits": (batch, priors, logits)}
        found = {output.role: output.shape for output in self.outputs}
        if found != expected or len(self.outputs) != len(expected):
            raise ValueError(
                f"{priors} priors and {len(self.labels)} labels need outputs {expected}, got {found}"
            )
        return self

    def output(self, role: str) -> OutputSpec:
        """The output with that role; `KeyError` where there is none."""
        for spec in self.outputs:
            if spec.role == role:
                return spec
        raise KeyError(role)

    def with_batch(self, batch: int) -> DetectorSpec:
        """The same detector for so many images at once, 1 to `MOST_IMAGES`."""
        outputs = tuple(o.model_copy(update={"shape": (batch, *o.shape[1:])}) for o in self.outputs)
        images = self.input.model_copy(update={"batch": batch})
        return self.model_copy(update={"input": images, "outputs": outputs})

    def to_json(self) -> str:
        """One line of JSON, as it is embedded in artifacts."""
        return self.model_dump_json()

    @staticmethod
    def from_json(text: str | bytes, *, source: str) -> DetectorSpec:
        """Read a spec that was embedded in `source`.

        Raises:
            BundleError: The text is not a spec of a schema version that this edgedet reads.
        """
        try:
            return DetectorSpec.model_validate_json(text)
        except ValidationError as exc:
            raise BundleError(
                f"cannot read the detector spec in {source}",
                got=first_problem(exc),
                expected=f"a spec of schema version {SCHEMA_VERSION}",
                fix="export the detector again with this version of edgedet",
            ) from exc
