"""How a detector is quantized, as data: a TOML file that is saved beside what it made."""

from __future__ import annotations

import json
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from edgedet.errors import ConfigError
from edgedet.spec import Value, first_problem
from edgedet.toml import read_toml, toml_string


class Recipe(Value):
    """Options of calibration and quantization.

    Attributes:
        observer: How a tensor's range is chosen from its histogram: a name of `edgedet.registry.OBSERVERS`,
            or "learned" where quantization-aware training chose it.
        percentile: Share of values, in percent, that the percentile observer keeps inside the range.
        images: Calibration images, taken evenly from the data set.
        weights: Scales of weights: one for each output channel, or one for the tensor.
        equalization: Whether channels that share a scale are brought to similar ranges first.
        rounding: Whether each weight goes to the nearest integer, or to that which brings the output of its
            layer nearest to the float one, by least squares.
        bias_correction: Whether biases take out the shift that quantization gives the mean of a channel.
        pair_safe: Whether weights for ONNX Runtime, OpenVINO and LiteRT have scales at which no sum of two
            products overflows on x86 processors without VNNI (`edgedet.saturation`).
        float_layers: Shell patterns of node names that stay float.
    """

    observer: str = "percentile"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    images: Annotated[int, Field(gt=0)] = 96
    weights: Literal["per_channel", "per_tensor"] = "per_channel"
    equalization: bool = True
    rounding: Literal["nearest", "least_squares"] = "least_squares"
    bias_correction: bool = True
    pair_safe: bool = True
    float_layers: tuple[str, ...] = ()

    def learned(self, *, pair_safe: bool) -> Recipe:
        """This recipe for weights that were trained together with their ranges, and need no correction.

        Args:
            pair_safe: Whether they were trained at pair-safe scales: at others they are not what was trained.
        """
        return self.model_copy(
            update={
                "observer": "learned",
                "weights": "per_channel",
                "equalization": False,
                "rounding": "nearest",
                "bias_correction": False,
                "pair_safe": pair_safe,
            }
        )

    @property
    def corrects(self) -> bool:
        """Whether quantization needs corrections that were measured on images."""
        return self.bias_correction or self.rounding != "nearest"

    def keeps_float(self, node_name: str) -> bool:
        """Whether a node is to stay float."""
        return any(fnmatchcase(node_name, pattern) for pattern in self.float_layers)

    def check_names(self, node_names: Iterable[str]) -> None:
        """Refuse a pattern of `float_layers` that names nothing.

        Raises:
            ConfigError: No node has a name that matches it.
        """
        names = list(node_names)
        for pattern in self.float_layers:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ConfigError(
                    "the recipe keeps a layer float that the detector does not have",
                    got=f"float_layers {pattern!r}",
                    expected=f"names such as {', '.join(names[-4:-1])}",
                    fix="correct the pattern; the placement of a bundle's units lists all names",
                )

    def to_toml(self) -> str:
        """The recipe as the text of a TOML file."""
        patterns = ", ".join(toml_string(pattern) for pattern in self.float_layers)
        return (
            f"observer = {toml_string(self.observer)}\npercentile = {self.percentile}\n"
            f"images = {self.images}\n"
            f'weights = "{self.weights}"\nequalization = {json.dumps(self.equalization)}\n'
            f"rounding = {json.dumps(self.rounding)}\n"
            f"bias_correction = {json.dumps(self.bias_correction)}\n"
            f"pair_safe = {json.dumps(self.pair_safe)}\n"
            f"float_layers = [{patterns}]\n"
        )

    @staticmethod
    def load(path: Path) -> Recipe:
        """Read a recipe.

        Raises:
            ConfigError: The file cannot be read or says something that a recipe does not.
        """
        try:
            return Recipe.model_validate(read_toml(path, "check the path; `recipe.toml` of a bundle is one"))
        except ValidationError as exc:
            raise ConfigError(
                f"the recipe {path} does not validate",
                got=first_problem(exc),
                expected="keys " + ", ".join(Recipe.model_fields),
                fix="correct that key",
            ) from exc
