"""How far the integers of an export depend on the kernels that PyTorch computes in.

    python benchmarks/kernels_of_the_processor.py CHECKPOINT --calibration DIR --images 16

Calibrates twice, in processes of their own: with all instructions of this processor, and with PyTorch held to
AVX2. Then it quantizes in both processes from one of the calibrations, as `edgedet export --calibration FILE`
does. Printed is the share of weights that are other integers, and the largest difference in steps.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from edgedet.data import open_dataset
from edgedet_calibration.calibrate import calibrate
from edgedet_calibration.correction import with_corrections
from edgedet_calibration.encodings import ONNX_RUNTIME
from edgedet_calibration.images import CalibrationImages
from edgedet_calibration.quantize import quantize
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import Stats
from edgedet_export.sources import captured_checkpoint

AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def quantized(given: argparse.Namespace) -> None:
    """Write the int8 weights that this process gives, and its calibration where it is not given one."""
    captured, recipe = captured_checkpoint(given.checkpoint), Recipe(images=given.images)
    if given.stats.exists():
        stats = Stats.from_json(given.stats.read_bytes(), source=str(given.stats))
    else:
        dataset = open_dataset(given.calibration, given.split)
        images = CalibrationImages(dataset, captured.spec.input, given.images)
        stats = calibrate(captured, images, recipe)
        stats = with_corrections(captured, stats, recipe, [ONNX_RUNTIME], images)
        given.stats.write_text(stats.model_dump_json())
    buffers = quantize(captured, stats, recipe, ONNX_RUNTIME).named_buffers()
    np.savez(given.worker, **{name: b.numpy() for name, b in buffers if b.dtype == torch.int8})


def compared(one: Path, other: Path) -> str:
    """Of two files of weights, how many differ and by how much."""
    with np.load(one) as first, np.load(other) as second:
        steps = np.concatenate(
            [np.abs(first[n].astype(int) - second[n].astype(int)).ravel() for n in first.files]
        )
    return f"{100 * np.mean(steps > 0):.2f} % of {len(steps)} weights differ, by {steps.max()} steps at most"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--split")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--stats", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        quantized(given)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        runs = (("here", "here", {}), ("avx2", "avx2", AVX2), ("here", "avx2_again", AVX2))
        for stats, name, environment in runs:
            files = ["--stats", str(folder / f"{stats}.json"), "--worker", str(folder / f"{name}.npz")]
            command = [sys.executable, __file__, *sys.argv[1:], *files]
            subprocess.run(command, env=os.environ | environment, check=True)
        print(f"calibrated in each: {compared(folder / 'here.npz', folder / 'avx2.npz')}")
        print(f"from one calibration.json: {compared(folder / 'here.npz', folder / 'avx2_again.npz')}")


if __name__ == "__main__":
    main()
