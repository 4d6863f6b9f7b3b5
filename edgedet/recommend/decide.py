"""Which artifact to ship, from measured figures alone.

A precision that keeps enough of the float mAP and is not slower than fp32 on its runtime may be shipped;
where that fp32 itself loses too much, slower ones may be too. Of those the fastest is shipped, and of equally
fast ones the most accurate, then the smallest. A precision whose gain of speed is within noise counts as
exactly as fast as fp32. What is chosen so is never dominated: another row that is no worse in latency, mAP
and size, and better in one, would have been chosen before it, or the fp32 that row is slower than.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from edgedet.spec import Value

FLOAT_PRECISION = "fp32"

Speed = Literal["reference", "faster", "slower", "within noise", "unknown"]


class Candidate(Value):
    """What was measured of one artifact.

    Attributes:
        runtime: Name of the runtime.
        precision: Precision of the artifact.
        latency_ms: Median from image to detections.
        latency_ratio: Latency over that of fp32 of the same runtime, measured in turns; None without fp32.
        ratio_interval: Between which values that ratio lies with 95 % confidence, None if not known.
        map: COCO mAP, 0..1.
        model_bytes: Size of the artifact's files.
    """

    runtime: str
    precision: str
    latency_ms: float
    latency_ratio: float | None
    ratio_interval: tuple[float, float] | None
    map: float
    model_bytes: int


class Figures(Candidate):
    """A candidate with what follows from its figures and those of the others.

    Attributes:
        speed: Against fp32 of the same runtime.
        judged_latency_ms: What it is ranked by: that of fp32 times the ratio, or that of fp32 itself where
            the gain is within noise.
        map_drop: Part of the float mAP that is lost, negative where it gained; None without a float mAP.
        within_budget: Whether it loses no more than may be lost.
        optimal: Whether no other artifact of the same runtime is as good in all of latency, mAP and size, and
            better in one: Pareto-optimal.
    """

    speed: Speed
    judged_latency_ms: float
    map_drop: float | None
    within_budget: bool
    optimal: bool


class Advice(Value):
    """What to ship with one runtime; `precision` is None where nothing can be recommended."""

    runtime: str
    precision: str | None
    sentence: str


class Recommendation(Value):
    """What to ship, and why.

    Attributes:
        float_map: The best mAP of any fp32 artifact; None where there is no fp32.
        max_drop: Part of it that may be lost, 0..1.
        rows: Every artifact, in the order given.
        advice: One sentence a runtime.
        runtime: Of the artifact to ship, None where nothing can be recommended; `precision` likewise.
        sentence: What to ship, and why.
    """

    float_map: float | None
    max_drop: float
    rows: tuple[Figures, ...]
    advice: tuple[Advice, ...]
    runtime: str | None
    precision: str | None
    sentence: str


def recommend(rows: Sequence[Candidate], max_drop: float) -> Recommendation:
    """Decide.

    Args:
        rows: One an artifact, of any precisions.
        max_drop: Part of the float mAP that may be lost, 0..1.
    """
    floats = {row.runtime: row for row in rows if row.precision == FLOAT_PRECISION}
    float_map = max((row.map for row in floats.values()), default=None)
    ranked = [_figures(row, floats.get(row.runtime), float_map, max_drop) for row in rows]
    judged = [row.model_copy(update={"optimal": _is_optimal(row, ranked)}) for row in ranked]
    by_runtime: dict[str, list[Figures]] = {}
    for row in judged:
        by_runtime.setdefault(row.runtime, []).append(row)
    best = _best(judged)
    return Recommendation(
        float_map=float_map,
        max_drop=max_drop,
        rows=tuple(judged),
        advice=tuple(_advice(runtime, members, max_drop) for runtime, members in by_runtime.items()),
        runtime=best.runtime if best else None,
        precision=best.precision if best else None,
        sentence=_overall(best, float_map, max_drop, [row for row in judged if row.speed != "reference"]),
    )


def dominates(one: Figures, other: Figures) -> bool:
    """Whether one is no worse in latency, mAP and size, and better in at least one of them."""
    ours, theirs = _key(one), _key(other)
    return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))


def _key(row: Figures) -> tuple[float, float, int]:
    return row.judged_latency_ms, -row.map, row.model_bytes


def _is_optimal(row: Figures, rows: Sequence[Figures]) -> bool:
    return not any(dominates(other, row) for other in rows if other.runtime == row.runtime)


def _best(rows: Sequence[Figures]) -> Figures | None:
    sound = {row.runtime for row in rows if row.speed == "reference" and row.within_budget}
    able = [row for row in rows if row.within_budget and not (row.speed == "slower" and row.runtime in sound)]
    return min(able, key=_key, default=None)


def _figures(
    row: Candidate, reference: Candidate | None, float_map: float | None, max_drop: float
) -> Figures:
    speed = _speed(row, reference)
    latency_ms = row.latency_ms
    if reference is not None and row.latency_ratio is not None and speed != "reference":
        latency_ms = reference.latency_ms * (1.0 if speed == "within noise" else row.latency_ratio)
    return Figures(
        **row.model_dump(),
        speed=speed,
        judged_latency_ms=latency_ms,
        map_drop=1 - row.map / float_map if float_map else None,
        within_budget=float_map is not None and row.map >= (1 - max_drop) * float_map,
        optimal=False,
    )


def _speed(row: Candidate, reference: Candidate | None) -> Speed:
    """A ratio above 1 is slower, however wide its interval."""
    if row.precision == FLOAT_PRECISION:
        return "reference"
    if reference is None or row.latency_ratio is None:
        return "unknown"
    if row.latency_ratio > 1:
        return "slower"
    surely = row.ratio_interval is not None and row.ratio_interval[1] < 1
    return "faster" if surely else "within noise"


def _advice(runtime: str, rows: Sequence[Figures], max_drop: float) -> Advice:
    best = _best(rows)
    others = [row for row in rows if row is not best and row.speed != "reference"]
    if best is None:
        lost = "; ".join(f"{row.precision} {_accuracy(row)}" for row in rows)
        return Advice(runtime=runtime, precision=None, sentence=f"{runtime}: ship none of it: {lost}")
    refused = "".join(f", no to {row.precision}" for row in others)
    reasons = [_reason(row, best, max_drop) for row in ([] if best.speed == "reference" else [best]) + others]
    why = f": {'; '.join(reasons)}" if reasons else ", the only one there is"
    return Advice(
        runtime=runtime, precision=best.precision, sentence=f"{runtime}: ship {best.precision}{refused}{why}"
    )


def _reason(row: Figures, best: Figures, max_drop: float) -> str:
    """Both figures of a precision, and what they mean."""
    text = f"{row.precision} {_latency(row)} and {_accuracy(row)}"
    if not row.within_budget:
        return f"{text}, where at most {100 * max_drop:g} % may be lost"
    if row is not best and row.speed == "within noise":
        return f"{text}, so that only its size is a proven gain ({_megabytes(row)})"
    return f"{text}, in {_megabytes(row)}" if row is best else text


def _latency(row: Figures) -> str:
    if row.latency_ratio is None:
        return f"takes {row.latency_ms:.2f} ms, with no fp32 of this runtime to compare with,"
    low_high = row.ratio_interval
    interval, noise = "too few rounds for an interval", ", which proves no gain,"
    if low_high is not None:
        interval = f"95 % interval {low_high[0]:.2f} to {low_high[1]:.2f}"
        noise = ", which is within noise," if low_high[0] <= 1 <= low_high[1] else ""
    return f"takes {row.latency_ratio:.2f} times as long as fp32 ({interval}){noise}"


def _accuracy(row: Figures) -> str:
    if row.map_drop is None:
        return f"has mAP {100 * row.map:.2f}, with no float mAP above 0 to compare with"
    verb, size = ("gains", -row.map_drop) if row.map_drop < 0 else ("loses", row.map_drop)
    return f"{verb} {100 * size:.2f} % of the float mAP (mAP {100 * row.map:.2f})"


def _megabytes(row: Figures) -> str:
    return f"{row.model_bytes / 1e6:.2f} MB"


def _overall(
    best: Figures | None, float_map: float | None, max_drop: float, others: Sequence[Figures]
) -> str:
    if float_map is None:
        return "Nothing can be recommended: there is no fp32 artifact to judge by; export with fp32 as well"
    if best is None:
        return f"Ship nothing: no artifact keeps {100 * (1 - max_drop):g} % of the float mAP"
    figures = f"{best.latency_ms:.2f} ms a frame, mAP {100 * best.map:.2f}, {_megabytes(best)}"
    text = f"Ship {best.runtime} {best.precision}: {figures}"
    if best.speed == "reference" and others:
        names = " or ".join(sorted({row.precision for row in others}))
        return f"{text}; no to {names} on this machine"
    if best.map_drop is None:
        return text
    return f"{text}; it {_accuracy(best).partition(' (')[0]}, of which {100 * max_drop:g} % may be lost"
