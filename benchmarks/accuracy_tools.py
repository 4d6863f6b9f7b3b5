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
from edgedet_calibration.bias_correction import with_bias_shifts
from edgedet_calibration.calibrate import calibrate
from edgedet_calibration.collect import calibration_images
from edgedet_calibration.encodings import ENCODINGS, Encoding
from edgedet_calibration.quantize import quantize
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.reference import Reference


@dataclass(frozen=True, slots=True)
class Row:
    """One recipe in one encoding.

    Attributes:
        encoding: Its name.
        weights: Granularity of weight scales.
        equalization: As in `Recipe`.
        bias_correction: As in `Recipe`.
        snr_db: Of every raw output against float.
        map: COCO's mAP, 0 to 1, where it was asked for.
    """

    encoding: str
    weights: str
    equalization: bool
    bias_correction: bool
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
    stats = calibrate(captured, images, recipe)
    if recipe.bias_correction:
        stats = with_bias_shifts(captured, stats, recipe, [encoding], images)
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
    parser.add_argument("--map", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_grad_enabled(False)
    captured = capture(load_checkpoint(given.checkpoint))
    images, judge = (
        open_dataset(given.calibration, given.calibration_split),
        open_dataset(given.data, given.split),
    )
    options = itertools.product(("per_channel", "per_tensor"), (False, True), (True, False))
    rows = []
    print(f"{'encoding':13}{'weights':13}{'equalized':>10}{'biases':>10}{'mAP':>8}  SNR dB")
    for (weights, equalization, correction), name in itertools.product(options, given.encodings.split(",")):
        recipe = Recipe.model_validate(
            {
                "images": given.calibration_images,
                "weights": weights,
                "equalization": equalization,
                "bias_correction": correction,
            }
        )
        row = measured(captured, recipe, ENCODINGS[name], images, judge, given)
        rows.append(row)
        points = "–" if row.map is None else f"{100 * row.map:.2f}"
        outputs = ", ".join(f"{output} {snr:.1f}" for output, snr in row.snr_db.items())
        words = ("yes" if equalization else "no", "corrected" if correction else "plain")
        print(f"{name:13}{weights:13}{words[0]:>10}{words[1]:>10}{points:>8}  {outputs}", flush=True)
    if given.json:
        given.json.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
