"""Host time around the network: preprocess, candidates and suppression of one frame, on one thread.

    python benchmarks/host_processing.py

The frame is 640x480, the detector's input 320x320 with 3,234 priors and three labels. The outputs are those
of a detector that sees fifteen objects: priors that overlap an object have high scores of its class and
offsets to its box, with noise.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import cv2
import numpy as np

from edgedet.boxes import Floats, cxcywh_to_xyxy, iou
from edgedet.decode import find_candidates, suppress
from edgedet.decode.ssd import encode_offsets, priors_cxcywh
from edgedet.preprocess import preprocess
from edgedet.spec import DetectorSpec, InputSpec, OutputSpec, SsdDecoder, SsdPriors

_REPEATS = 2000
_OBJECTS = 15


def make_spec() -> DetectorSpec:
    """An SSDLite detector of the usual shape."""
    priors = SsdPriors(
        feature_maps_hw=((20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)),
        scales=(0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0),
        aspect_ratios=((2.0, 3.0),) * 6,
    )
    labels = ("Platelets", "RBC", "WBC")
    return DetectorSpec(
        name="host-processing",
        input=InputSpec(size_hw=(320, 320)),
        outputs=(
            OutputSpec(name="box_offsets", shape=(1, priors.count, 4), role="box_offsets"),
            OutputSpec(name="class_logits", shape=(1, priors.count, len(labels) + 1), role="class_logits"),
        ),
        decoder=SsdDecoder(priors=priors),
        labels=labels,
    )


def make_outputs(spec: DetectorSpec, rng: np.random.Generator) -> dict[str, Floats]:
    """What a trained detector would give for an image with fifteen objects."""
    priors = priors_cxcywh(spec.decoder.priors, spec.input.size_hw)
    sizes = rng.uniform(50, 90, (_OBJECTS, 2))
    objects = np.concatenate([rng.uniform(30, 290, (_OBJECTS, 2)), sizes], axis=1).astype(np.float32)
    overlap = iou(cxcywh_to_xyxy(priors), cxcywh_to_xyxy(objects))
    matched, best = overlap.argmax(axis=1), overlap.max(axis=1)
    logits = rng.normal(0, 0.6, (len(priors), len(spec.labels) + 1)).astype(np.float32)
    logits[:, 0] += 6
    classes = rng.integers(1, len(spec.labels) + 1, _OBJECTS)
    logits[np.arange(len(priors)), classes[matched]] += 11 * best
    offsets = encode_offsets(objects[matched], priors, spec.decoder.variances)
    offsets += rng.normal(0, 0.3, offsets.shape).astype(np.float32)
    return {"box_offsets": offsets[None].clip(-20, 20), "class_logits": logits[None]}


def p50_ms(call: Callable[[], object]) -> float:
    """Median wall time of a call."""
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times) * 1e3


def main() -> None:
    """Print the medians."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    spec = make_spec()
    frame = cv2.resize(rng.integers(0, 256, (48, 64, 3), np.uint8), (640, 480))
    outputs = make_outputs(spec, rng)
    tensor, geometry = preprocess(frame, spec.input)
    candidates = find_candidates(outputs, spec, geometry)
    detections = suppress(candidates, spec)

    def all_stages() -> None:
        _, found = preprocess(frame, spec.input, tensor)
        suppress(find_candidates(outputs, spec, found), spec)

    rows = {
        "preprocess": p50_ms(lambda: preprocess(frame, spec.input, tensor)),
        "candidates": p50_ms(lambda: find_candidates(outputs, spec, geometry)),
        "nms": p50_ms(lambda: suppress(candidates, spec)),
        "total": p50_ms(all_stages),
    }
    print(f"{len(candidates.scores)} candidates, {len(detections)} detections, {_REPEATS} repeats")
    for name, value in rows.items():
        print(f"{name:<12}{value:8.3f} ms p50")


if __name__ == "__main__":
    main()
