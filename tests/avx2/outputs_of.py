"""Write the raw outputs of an artifact for some images: `BUNDLE RUNTIME PRECISION DATA COUNT OUTPUT.npz`."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import numpy as np

from edgedet import registry
from edgedet.bundle import open_bundle
from edgedet.data import open_dataset
from edgedet.preprocess import preprocess


def main(root: str, runtime: str, precision: str, data: str, count: str, output: str) -> None:
    bundle = open_bundle(root)
    path = bundle.path_of(bundle.artifact(runtime, precision))
    found = {}
    with registry.RUNTIMES.load(runtime)(path, threads=1) as opened:
        for number, image in enumerate(islice(open_dataset(data, "test"), int(count))):
            tensor, _ = preprocess(image.image_bgr, opened.spec.input)
            outputs = opened.run({opened.spec.input.name: tensor})
            found |= {f"{number}/{name}": array for name, array in outputs.items()}
    np.savez(Path(output), **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
