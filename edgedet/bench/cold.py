"""Time from the start of a process to its first detections: `python -m edgedet.bench.cold JSON` is measured.

A camera that wakes up, or a program that is started for one picture, pays for it; a benchmark that warms up
does not see it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgedet import registry
from edgedet.decode import decode_batch
from edgedet.pipeline import load
from edgedet.preprocess import preprocess_batch


def main(arguments: list[str]) -> None:
    """Detect in one image, or in one batch of them, and print what each step took, in milliseconds.

    Args:
        arguments: `edgedet.bench.workers.Order` as JSON, and the time of day when the process was started.
    """
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    order, started = json.loads(arguments[0]), float(arguments[1])
    answer.write(json.dumps(_marks(order, started)) + "\n")
    answer.flush()
    # What follows would be the end of the vendor's threads.
    os._exit(0)


def _marks(order: dict[str, Any], started: float) -> dict[str, float]:
    clock = time.perf_counter
    cv2.setNumThreads(order["threads"])
    with np.load(order["images"]) as file:
        images = [file[name] for name in islice(cycle(file.files), order["batch"])]
    interpreter_ms, begun = 1e3 * (time.time() - started), clock()
    registry.RUNTIMES.load(order["runtime"])
    imported = clock()
    what = (Path(order["path"]), order["runtime"], order["precision"], order["threads"])
    pipeline = load(*what, batch=order["batch"])
    opened = clock()
    spec = pipeline.spec
    tensor, geometries = preprocess_batch(images, spec.input)
    fed = clock()
    outputs = pipeline.runtime.run({spec.input.name: tensor})
    ran = clock()
    decode_batch(outputs, spec, geometries)
    done = clock()
    return {
        "interpreter_ms": interpreter_ms,
        "import_ms": 1e3 * (imported - begun),
        "open_ms": 1e3 * (opened - imported),
        "first_inference_ms": 1e3 * (ran - fed),
        "first_frame_ms": 1e3 * (done - opened),
        "total_ms": interpreter_ms + 1e3 * (done - begun),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
