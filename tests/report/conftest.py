"""Reports with everything in them that a page must survive: hostile names, missing numbers, failures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from edgedet.bench import BenchmarkReport, BenchmarkRow, Percentiles
from edgedet.data import Summary
from edgedet.detections import Detections
from edgedet.environment import Environment
from edgedet.parity import BaselineComparison, ParityReport, ParityRow, load_budgets
from edgedet.parity.baseline import Regression
from edgedet.parity.compare import DetectionComparison
from edgedet.parity.distributions import Distributions
from edgedet.parity.report import (
    ClassParity,
    ComparedImage,
    ComparedObject,
    ImageParity,
    OutputDifference,
    Reference,
)
from edgedet.processor import Processor
from edgedet.selection import Skipped
from edgedet.spec import DetectorSpec, InputSpec, OutputSpec, SsdDecoder, SsdPriors

sys.path.insert(0, str(Path(__file__).parent))  # for browser

from browser import NAMES, Browser, find_browser

Report = TypeVar("Report", ParityReport, BenchmarkReport)

HOSTILE = "<script>alert(1)</script>\" onload='x' é"
MACHINE = Environment(
    cpu=f"A processor {HOSTILE}", cores=2, os="Linux", python="3.11", packages={"numpy": "2.0"}
)

# Where INT8 saturates; reports of earlier versions have no processor.
OLD = Processor(architecture="x86_64", avx2=True)


@pytest.fixture
def on_old_processor() -> Callable[[Report], Report]:
    """The same report from a machine whose processor is known."""
    return lambda report: report.model_copy(
        update={"environment": MACHINE.model_copy(update={"processor": OLD})}
    )


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    path = find_browser()
    if path is None:
        pytest.skip(f"no browser is installed; one of {', '.join(NAMES)} on the path opens the pages")
    with Browser(path) as opened:
        yield opened


@pytest.fixture
def spec() -> DetectorSpec:
    priors = SsdPriors(feature_maps_hw=((1, 1),), scales=(0.2, 0.4), aspect_ratios=((2.0,),))
    return DetectorSpec(
        name="detector",
        input=InputSpec(size_hw=(240, 320)),
        outputs=(
            OutputSpec(name="box_offsets", shape=(1, 4, 4), role="box_offsets"),
            OutputSpec(name="class_logits", shape=(1, 4, 3), role="class_logits"),
        ),
        decoder=SsdDecoder(priors=priors),
        labels=("cell", HOSTILE),
    )


def compared(outcome: str) -> ComparedObject:
    box, score = (10.0, 10.0, 40.0, 40.0), 0.5
    theirs = {} if outcome == "gained" else {"reference_box_xyxy": box, "reference_score": score}
    ours = {} if outcome == "lost" else {"box_xyxy": box, "score": score}
    return ComparedObject(label=HOSTILE, outcome=outcome, **theirs, **ours)


def distributions(pairs: int = 40) -> Distributions:
    """Pairs that differ a little, some lost and some gained, counted as a run counts them."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 2000, (pairs, 2))
    boxes = np.concatenate([corners, corners + 30], axis=1).astype(np.float32)
    scores = rng.uniform(0.5, 0.9, pairs).astype(np.float32)
    ids = np.zeros(pairs, np.int64)
    found = DetectionComparison(("cell",), load_budgets().int8, 0.4)
    moved = boxes + rng.normal(0, 0.5, boxes.shape).astype(np.float32)
    found.add(
        "photo 1.jpg",
        Detections(boxes, scores, ids)[: pairs - 3],
        Detections(moved, scores + rng.normal(0, 0.01, pairs).astype(np.float32), ids)[4:],
    )
    return found.counter.distributions()


def row(
    runtime: str, precision: str, *, passed: bool = True, outcomes: tuple[str, ...] = ("matched",)
) -> ParityRow:
    lost, gained = outcomes.count("lost"), outcomes.count("gained")
    worst = ComparedImage(
        image_id="photo 1.jpg",
        lost=lost,
        gained=gained,
        max_score_delta=0.01,
        max_box_px=1.5,
        objects=tuple(compared(outcome) for outcome in outcomes),
    )
    return ParityRow(
        runtime=runtime,
        precision=precision,
        model_bytes=2_345_678,
        model_sha256="ab" * 32,
        images=3,
        map=0.5,
        map50=0.7,
        map_delta=-0.01,
        matched_fraction=0.99996,
        matched=10,
        lost=lost,
        gained=gained,
        excused=0,
        max_score_delta=0.01,
        max_box_px=1.5,
        decoded_matched_fraction=1.0,
        output_snr_db=35.0,
        output_max_relative_error=0.01,
        outputs=(OutputDifference(name=HOSTILE, max_relative_error=0.01, snr_db=35.0),),
        classes=(
            ClassParity(label=HOSTILE, matched=10, lost=lost, gained=gained, excused=1, ap_delta=None),
            ClassParity(
                label="cell",
                matched=30,
                lost=0,
                gained=0,
                excused=0,
                boxes=12,
                ap=0.5 if passed else 0.42,
                reference_ap=0.5,
                ap_delta=0.0 if passed else -0.08,
            ),
        ),
        distributions=distributions(),
        worst_images=(worst,),
        differing_images=(
            ImageParity(
                image_id=f"a/{HOSTILE}.jpg",
                first_stage_over_budget="detections",
                matched=3,
                lost=lost,
                gained=gained,
                excused=0,
                classes=(HOSTILE,),
                max_score_delta=0.01,
                max_box_px=1.5,
                output_snr_db=35.0,
            ),
        ),
        differing_images_left_out=7,
        first_stage_over_budget=None if passed else "raw outputs",
        stages_over_budget=() if passed else ("raw outputs", "mAP"),
        passed=passed,
        reasons=()
        if passed
        else (f"because {HOSTILE}", "class cell: AP fell by 8.00 points; the budget is 2"),
    )


@pytest.fixture
def parity() -> ParityReport:
    rows = (
        row("ort", "fp32"),
        row("ort", "int8", passed=False, outcomes=("lost", "gained", "excused", "matched")),
    )
    return ParityReport(
        detector=HOSTILE,
        checkpoint_sha256="cd" * 32,
        data=f"coco {HOSTILE}",
        data_summary=Summary(images=3, boxes=12).record(),
        images=3,
        boxes=12,
        score_threshold=0.4,
        reference=Reference(runtime="eager", precision="fp32", map=0.51, map50=None, detections=10),
        rows=rows,
        skipped=(Skipped(runtime="tflite", precision="int8", reason=HOSTILE),),
        budgets=load_budgets(),
        environment=MACHINE,
        passed=False,
    )


@pytest.fixture
def regressed(parity: ParityReport) -> ParityReport:
    """The same, worse than its baseline."""
    worse = Regression(
        runtime="ort", precision="int8", device="local", stage="mAP", label=HOSTILE, reason=f"worse {HOSTILE}"
    )
    found = BaselineComparison(
        differences=(f"another {HOSTILE}",), rows=(), new=("ort fp16",), regressions=(worse,), passed=False
    )
    return parity.model_copy(update={"baseline": found})


def timed(precision: str, threads: int, p50: float, speedup: float | None) -> BenchmarkRow:
    return BenchmarkRow(
        runtime="ort",
        precision=precision,
        threads=threads,
        frames=200,
        preprocess_ms=0.4,
        inference_ms=p50 - 1,
        postprocess_ms=0.6,
        total_ms=Percentiles(p50=p50, p90=p50 + 1, p99=p50 + 2),
        fps=1000 / p50,
        host_share=0.1,
        detections_per_frame=3.0,
        load_ms=10.0,
        warm_up_frames=20,
        stable=True,
        peak_rss_mb=None,
        model_bytes=10,
        speedup_vs_fp32=speedup,
    )


@pytest.fixture
def benchmark() -> BenchmarkReport:
    return BenchmarkReport(
        detector="detector",
        images="8 images",
        rows=(
            timed("fp32", 2, 11.0, 1.0),
            timed("fp32", 1, 20.0, 1.0),
            timed("int8", 2, 30.0, 0.37),
            timed("int8", 1, 25.0, 0.8),
        ),
        skipped=(),
        warnings=(f"warning {HOSTILE}",),
        environment=MACHINE,
    )
