"""What a detector is built from, as data: a part of a training configuration and of every checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from edgedet.errors import ConfigError
from edgedet.spec import DetectorName, InputSpec, Labels, SsdPriors, Value, problem_text
from edgedet.toml import read_toml

V = TypeVar("V", bound=Value)

_LISTED_PROBLEMS = 5
WRITE_ONE = "check the path; `edgedet models NAME > FILE` writes a configuration to start from"

# What pydantic calls a key that is unknown or missing.
_WRONG_KEYS = {"extra_forbidden": "there is no such key", "missing": "it is missing"}


class BackboneConfig(Value):
    """A timm backbone through `features_only`; `out_strides` are the feature maps that the head reads."""

    name: str = "mobilenetv2_100"
    out_strides: tuple[Annotated[int, Field(gt=0)], ...] = Field(default=(16, 32), min_length=1)

    @model_validator(mode="after")
    def _strides_ascend(self) -> BackboneConfig:
        if list(self.out_strides) != sorted(set(self.out_strides)):
            raise ValueError(f"out_strides must ascend without repeats, got {list(self.out_strides)}")
        return self


class SsdLiteConfig(Value):
    """SSDLite: depthwise-separable extra layers and predictors (MobileNetV2, CVPR 2018, section 6.2).

    `extra_channels` adds one feature map of half the size each; `scales` has one more entry than there are
    maps. `aspect_ratios` is one list for all maps, or one list for each map.
    """

    type: Literal["ssdlite"] = "ssdlite"
    extra_channels: tuple[Annotated[int, Field(gt=0)], ...] = (512, 256, 256, 128)
    scales: tuple[float, ...] = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)
    aspect_ratios: tuple[float, ...] | tuple[tuple[float, ...], ...] = (2.0, 3.0)
    variances: tuple[float, float] = (0.1, 0.2)


class DetectorConfig(Value):
    """Everything that fixes a detector's architecture and its pre- and post-processing."""

    name: DetectorName
    labels: Labels
    input: InputSpec
    backbone: BackboneConfig = BackboneConfig()
    head: SsdLiteConfig = SsdLiteConfig()
    score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.4
    iou_threshold: Annotated[float, Field(ge=0, le=1)] = 0.45
    max_detections: Annotated[int, Field(gt=0)] = 100

    @model_validator(mode="after")
    def _is_of_one_image(self) -> DetectorConfig:
        if self.input.batch != 1:
            raise ValueError(
                f"input.batch is 1 here, got {self.input.batch}: `edgedet export --batch` makes others"
            )
        return self

    @model_validator(mode="after")
    def _priors_are_valid(self) -> DetectorConfig:
        _ = self.priors
        return self

    @property
    def priors(self) -> SsdPriors:
        """The default boxes: every stride of the backbone, then a map of half the size for each extra layer.

        Sizes are rounded up, which is what 3x3 convolutions of stride 2 with a padding of 1 give.
        """
        height, width = self.input.size_hw
        maps = [(-(-height // stride), -(-width // stride)) for stride in self.backbone.out_strides]
        for _ in self.head.extra_channels:
            maps.append(((maps[-1][0] + 1) // 2, (maps[-1][1] + 1) // 2))
        ratios: list[tuple[float, ...]] = []
        shared = [ratio for ratio in self.head.aspect_ratios if isinstance(ratio, float)]
        for entry in self.head.aspect_ratios:
            if not isinstance(entry, float):
                ratios.append(entry)
        return SsdPriors(
            feature_maps_hw=tuple(maps),
            scales=self.head.scales,
            aspect_ratios=tuple(ratios) if ratios else (tuple(shared),) * len(maps),
        )


def read_detector_config(path: Path) -> DetectorConfig:
    """Read what a detector is built from: a training configuration, or the table `detector` of one alone.

    Raises:
        ConfigError: The file cannot be read, is no TOML, or a key is missing, unknown or has a wrong value.
    """
    document = read_toml(path, WRITE_ONE)
    return validated(DetectorConfig, document.get("detector", document), path)


def validated(kind: type[V], document: Any, path: Path) -> V:
    """The configuration that a document of `path` stands for.

    Raises:
        ConfigError: A key is missing, unknown or has a wrong value.
    """
    try:
        return kind.model_validate(document)
    except ValidationError as exc:
        errors = exc.errors()[:_LISTED_PROBLEMS]
        raise ConfigError(
            f"{path} does not say what it must",
            got="; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'the file'}: "
                + (_WRONG_KEYS.get(e["type"]) or problem_text(e["msg"]))
                for e in errors
            ),
            expected=_legal_keys(kind, [e["loc"] for e in errors if e["type"] in _WRONG_KEYS])
            or "values as said there",
            fix="correct the keys named above; `edgedet models NAME` prints a whole configuration",
        ) from exc


def _legal_keys(kind: type[Value], places: Sequence[tuple[int | str, ...]]) -> str:
    """The keys of the tables in which these keys are wrong or missing."""
    tables = {".".join(map(str, place[:-1])): _table(kind, place[:-1]) for place in places}
    return "; ".join(
        f"{', '.join(table.model_fields)} in {f'[{name}]' if name else 'the file'}"
        for name, table in tables.items()
        if table is not None
    )


def _table(kind: type[Value], place: Sequence[int | str]) -> type[Value] | None:
    """What a table is read as; None where a place is inside a list."""
    for part in place:
        field = kind.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, Value):
            return None
        kind = field.annotation
    return kind
