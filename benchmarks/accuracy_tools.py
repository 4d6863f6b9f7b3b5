"""What each option of a recipe gives: raw outputs and mAP of the fake-quantized graphs beside those of float.

    python benchmarks/accuracy_tools.py CHECKPOINT --calibration DIR --data DIR --split test

Every encoding that differs in its arithmetic is quantized with each set of options, calibrated on the same
images. `--images` limits what the outputs are compared on; mAP is measured on all of `--data` with `--map`.
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from edgedet.boxes import Floats
from edgedet.data import Dataset, open_dataset
from edgedet.evaluate import evaluate
from edgedet.models import load_checkpoint
from edgedet.models.capture import Captured, capture
from edgedet.parity.compare import OutputComparison
from edgedet.pipeline import Pipeline
from edgedet.preprocess import preprocess
from edgedet_calibration.calibrate import calibrate
from edgedet_calibration.correction import with_corrections
from edgedet_calibration.encodings import ENCODINGS, Encoding
from edgedet_calibration.images import CalibrationImages, calibration_images
from edgedet_calibration.quantize import quantize
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.reference import Reference

PLAIN = {"equalization": False, "bias_correction": False, "rounding": "nearest"}
RECIPES: dict[str, dict[str, object]] = {
    "plain": {},
    "bias correction": {"bias_correction": True},
    "equalization": {"equalization": True},
    "both": {"equalization": True, "bias_correction": True},
    "both and least squares": {"equalization": True, "bias_correction": True, "rounding": "least_squares"},
    "the same, not pair-safe": {
        "equalization": True,
        "bias_correction": True,
        "rounding": "least_squares",
        "pair_safe": False,
    },
}


@dataclass(frozen=True, slots=True)
class Row:
    """One recipe in one encoding.

    Attributes:
        encoding: Its name.
        weights: Granularity of weight scales.
        equalization: As in `Recipe`.
        bias_correction: As in `Recipe`.
        rounding: As in `Recipe`.
        pair_safe: As in `Recipe`.
        snr_db: Of every raw output against float.
        map: COCO's mAP, 0 to 1, where it was asked for.
    """

    encoding: str
    weights: str
    equalization: bool
    bias_correction: bool
    rounding: str
    pair_safe: bool
    snr_db: dict[str, float]
    map: float | None


def measured(
    captured: Captured,
    recipe: Recipe,
    encoding: Encoding,
    images: Dataset,
    judge: Dataset,
    given: argparse.Namespace,
) -> Row:
    """Calibrate, quantize, compare."""
    calibration = CalibrationImages(images, captured.spec.input, recipe.images)
    stats = calibrate(captured, calibration, recipe)
    stats = with_corrections(captured, stats, recipe, [encoding], calibration)
    quantized = Reference(captured.spec, quantize(captured, stats, recipe, encoding))
    exact = Reference(captured.spec, captured.graph_module)
    comparison = OutputComparison([output.name for output in captured.spec.outputs])
    for image in calibration_images(judge, given.images):
        feeds: dict[str, Floats] = {
            captured.spec.input.name: preprocess(image.image_bgr, captured.spec.input)[0]
        }
        comparison.add(exact.run(feeds), quantized.run(feeds))
    return Row(
        encoding=encoding.name,
        weights=recipe.weights,
        equalization=recipe.equalization,
        bias_correction=recipe.bias_correction,
        rounding=recipe.rounding,
        pair_safe=recipe.pair_safe,
        snr_db={output.name: output.snr_db for output in comparison.differences()},
        map=evaluate(Pipeline(quantized), judge).map if given.map else None,
    )


def main() -> None:
    """Measure and print one line a recipe and encoding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--calibration-split")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--calibration-images", type=int, default=96)
    parser.add_argument("--encodings", default="onnxruntime,openvino,tensorrt")
    parser.add_argument("--weights", default="per_channel,per_tensor")
    parser.add_argument("--map", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_grad_enabled(False)
    captured = capture(load_checkpoint(given.checkpoint))
    images, judge = (
        open_dataset(given.calibration, given.calibration_split),
        open_dataset(given.data, given.split),
    )
    rows = []
    print(f"{'encoding':13}{'weights':13}{'recipe':25}{'mAP':>8}  SNR dB")
    for weights, (name, options), encoding in itertools.product(
        given.weights.split(","), RECIPES.items(), given.encodings.split(",")
    ):
        recipe = Recipe.model_validate(
            {"images": given.calibration_images, "weights": weights, **PLAIN, **options}
        )
        row = measured(captured, recipe, ENCODINGS[encoding], images, judge, given)
        rows.append(row)
        points = "–" if row.map is None else f"{100 * row.map:.2f}"
        outputs = ", ".join(f"{output} {snr:.1f}" for output, snr in row.snr_db.items())
        print(f"{encoding:13}{weights:13}{name:25}{points:>8}  {outputs}", flush=True)
    if given.json:
        given.json.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
