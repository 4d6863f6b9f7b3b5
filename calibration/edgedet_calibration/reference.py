"""The fake-quantized torch graph of an INT8 artifact, rebuilt from the bundle to judge its runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from edgedet.boxes import Floats
from edgedet.bundle import Artifact, Bundle
from edgedet.errors import BundleError
from edgedet.files import sha256_of
from edgedet.models.capture import capture
from edgedet.models.checkpoint import load_checkpoint
from edgedet.spec import DetectorSpec, QuantizationSpec, TensorSpec
from edgedet_calibration.encodings import ENCODINGS, Encoding
from edgedet_calibration.layers import GraphLayers
from edgedet_calibration.quantization_table import QuantizationTable, quantization_table
from edgedet_calibration.quantize import plan, quantize
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.simulate import fingerprint, simulated
from edgedet_calibration.stats import Stats


class References:
    """The references of a bundle's INT8 artifacts; the detector is captured once for all.

    Args:
        bundle: Must hold the float detector, `calibration.json` and `recipe.toml`.

    Raises:
        BundleError: It does not, or they cannot be read.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        detector = load_checkpoint(bundle.path_of(bundle.artifact("eager", "fp32")))
        stats_path, recipe_path = (_file(bundle, name) for name in ("calibration.json", "recipe.toml"))
        self._stats = Stats.from_json(stats_path.read_bytes(), source=str(stats_path))
        self._stats_sha256 = sha256_of(stats_path)
        self._recipe = _as_it_was(Recipe.load(recipe_path))
        self._captured = capture(detector, bundle.spec)

    @property
    def calibrated_on(self) -> frozenset[str]:
        """sha256 of the images that ranges were seen on."""
        return frozenset(image.sha256 for image in self._stats.images if image.sha256)

    def open(self, artifact: Artifact) -> Reference:
        """The reference of one artifact.

        Raises:
            BundleError: Its encoding is not known, or it was not made with this calibration and recipe.
        """
        graph_module = quantize(self._captured, self._stats, self._recipe, self._encoding_of(artifact))
        return Reference(self._bundle.spec_of(artifact), graph_module)

    def table(self, artifact: Artifact) -> QuantizationTable:
        """Ranges, scales and zero points of one artifact.

        Raises:
            BundleError: As `open`.
        """
        encoding = self._encoding_of(artifact)
        planned = plan(self._captured, self._stats, self._recipe, encoding)
        return quantization_table(planned, self._stats, encoding)

    def _encoding_of(self, artifact: Artifact) -> Encoding:
        quantization = artifact.quantization
        if quantization is None or quantization.encoding not in ENCODINGS:
            raise BundleError(
                f"{artifact.files[0].path} has no known encoding",
                got="none" if quantization is None else quantization.encoding,
                expected=", ".join(ENCODINGS),
                fix="export again with this version of edgedet",
            )
        _check_same(quantization, self._stats_sha256, self._recipe)
        return ENCODINGS[quantization.encoding]


class Reference:
    """A fake-quantized graph with the interface of a runtime.

    Attributes:
        computes: Where this is equal, so are the outputs for the same input.
    """

    name = "reference"

    def __init__(self, spec: DetectorSpec, graph_module: torch.fx.GraphModule) -> None:
        self.spec = spec
        self.inputs: tuple[TensorSpec, ...] = (spec.input.tensor,)
        self.outputs: tuple[TensorSpec, ...] = spec.outputs
        self._graph_module = graph_module
        self._simulated = simulated(graph_module)
        self.computes = fingerprint(self._simulated)

    def run(self, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        """Outputs by name, in float arithmetic on quantized values."""
        with torch.inference_mode():
            outputs = self._simulated(torch.from_numpy(feeds[self.spec.input.name]))
        return {o.name: np.asarray(t) for o, t in zip(self.spec.outputs, outputs, strict=True)}

    def layers(self) -> GraphLayers:
        """A new comparison of a runtime's layers with these."""
        return GraphLayers(self._graph_module, self.spec)

    def close(self) -> None:
        """Nothing to free."""


def _as_it_was(recipe: Recipe) -> Recipe:
    """A recipe of an earlier version says nothing of pairs: weights were not scaled for them."""
    if "pair_safe" in recipe.model_fields_set:
        return recipe
    return recipe.model_copy(update={"pair_safe": False})


def _check_same(quantization: QuantizationSpec, stats_sha256: str, recipe: Recipe) -> None:
    found = (stats_sha256, recipe.observer, recipe.weights, recipe.float_layers)
    written = (
        quantization.calibration_sha256,
        quantization.observer,
        quantization.granularity,
        quantization.float_layers,
    )
    if found != written:
        raise BundleError(
            "the bundle's calibration and recipe are not those of its INT8 artifacts",
            got=", ".join(str(a) for a, b in zip(found, written, strict=True) if a != b),
            expected=", ".join(str(b) for a, b in zip(found, written, strict=True) if a != b),
            fix="export again with INT8",
        )


def _file(bundle: Bundle, name: str) -> Path:
    for entry in bundle.manifest.files:
        if entry.path == name:
            return bundle.check(entry)
    raise BundleError(
        f"{bundle.root} has no {name}",
        got="a bundle without it",
        expected="what its INT8 artifacts were calibrated with",
        fix="export again with INT8",
    )
