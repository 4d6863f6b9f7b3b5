"""What is recommended, over all figures that can be measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedet.recommend import Candidate, Recommendation, recommend
from edgedet.recommend.decide import Figures, dominates

PRECISIONS = ("fp32", "fp16", "int8", "int4_of_tomorrow")


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    """Any subset of artifacts; figures are coarse, so that ties are common."""
    names = [(runtime, precision) for runtime in ("a", "b") for precision in PRECISIONS]
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    with_float = {runtime for runtime, precision in chosen if precision == "fp32"}
    rows = []
    for runtime, precision in chosen:
        ratio = draw(st.integers(5, 20)) / 10
        spread = draw(st.sampled_from([None, 0.0, 0.1, 0.5]))
        is_timed = runtime in with_float
        rows.append(
            Candidate(
                runtime=runtime,
                precision=precision,
                latency_ms=draw(st.integers(1, 30)),
                latency_ratio=(1.0 if precision == "fp32" else ratio) if is_timed else None,
                ratio_interval=(ratio - spread, ratio + spread)
                if is_timed and spread is not None and precision != "fp32"
                else None,
                map=draw(st.integers(0, 10)) / 10,
                model_bytes=draw(st.integers(1, 5)),
            )
        )
    return rows


def shipped(found: Recommendation) -> list[Figures]:
    """Every row that is recommended, for a runtime or for all."""
    names = {(advice.runtime, advice.precision) for advice in found.advice}
    names.add((found.runtime, found.precision))
    return [row for row in found.rows if (row.runtime, row.precision) in names]


@given(candidates(), st.sampled_from([0.0, 0.01, 0.3]))
def test_a_dominated_row_is_never_recommended(rows, max_drop):
    found = recommend(rows, max_drop)
    for row in shipped(found):
        assert row.optimal
        assert not any(dominates(other, row) for other in found.rows if other.runtime == row.runtime)
    for row in found.rows:
        if (row.runtime, row.precision) == (found.runtime, found.precision):
            assert not any(dominates(other, row) for other in found.rows)


@given(candidates(), st.sampled_from([0.0, 0.01, 0.3]))
def test_what_is_slower_than_an_fp32_that_could_be_shipped_is_never_recommended(rows, max_drop):
    found = recommend(rows, max_drop)
    sound = {row.runtime for row in found.rows if row.precision == "fp32" and row.within_budget}
    for row in shipped(found):
        if row.runtime in sound and row.precision != "fp32":
            assert row.latency_ratio <= 1


@given(candidates(), st.sampled_from([0.0, 0.01, 0.3]))
def test_nothing_out_of_budget_is_recommended(rows, max_drop):
    floats = [row.map for row in rows if row.precision == "fp32"]
    for row in shipped(recommend(rows, max_drop)):
        assert row.map >= (1 - max_drop) * max(floats)


@given(candidates(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing_that_is_shipped(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    figures = []
    for found in (recommend(rows, 0.01), recommend(shuffled, 0.01)):
        figures.append(
            [
                (row.judged_latency_ms, row.map, row.model_bytes)
                for row in found.rows
                if (row.runtime, row.precision) == (found.runtime, found.precision)
            ]
        )
    assert figures[0] == figures[1]


def test_a_slower_precision_is_shipped_where_fp32_of_its_runtime_lost_too_much():
    rows = [row("fp32", map=0.5), row("int8", 1.1), row("fp32", runtime="litert", latency_ms=20.0)]
    found = recommend(rows, 0.01)
    assert (found.runtime, found.precision) == ("ort", "int8")
    assert "takes 1.10 times as long as fp32" in found.advice[0].sentence


def row(precision: str, ratio: float = 1.0, spread: float | None = 0.02, **changes: object) -> Candidate:
    figures = {
        "runtime": "ort",
        "precision": precision,
        "latency_ms": 10 * ratio,
        "latency_ratio": ratio,
        "ratio_interval": None if spread is None else (ratio - spread, ratio + spread),
        "map": 0.6,
        "model_bytes": 4_000_000,
    }
    return Candidate.model_validate({**figures, **changes})


def test_int8_that_is_faster_and_keeps_the_map_is_shipped_with_both_figures():
    found = recommend([row("fp32", map=0.62), row("int8", 0.5, map=0.619, model_bytes=1_000_000)], 0.01)
    assert (found.runtime, found.precision) == ("ort", "int8")
    (advice,) = found.advice
    assert advice.sentence == (
        "ort: ship int8: int8 takes 0.50 times as long as fp32 (95 % interval 0.48 to 0.52) and loses 0.16 % "
        "of the float mAP (mAP 61.90), in 1.00 MB"
    )


def test_slow_int8_gets_a_plain_no_with_both_figures():
    found = recommend([row("fp32"), row("int8", 1.4, map=0.599)], 0.01)
    assert found.precision == "fp32"
    assert "ship fp32, no to int8: int8 takes 1.40 times as long as fp32" in found.advice[0].sentence
    assert "loses 0.17 % of the float mAP (mAP 59.90)" in found.advice[0].sentence
    assert found.sentence.endswith("no to int8 on this machine")


def test_int8_that_loses_too_much_gets_a_plain_no_with_both_figures():
    rows = [row("fp32"), row("int8", 0.5, map=0.57)]
    (advice,) = recommend(rows, 0.01).advice
    assert advice.precision == "fp32"
    assert "takes 0.50 times" in advice.sentence
    assert "loses 5.00 % of the float mAP (mAP 57.00), where at most 1 % may be lost" in advice.sentence
    assert recommend(rows, 0.06).precision == "int8"


@pytest.mark.parametrize(("spread", "words"), [(0.1, "within noise"), (None, "which proves no gain")])
def test_a_gain_within_noise_is_said_and_is_no_gain(spread, words):
    found = recommend([row("fp32"), row("int8", 0.95, spread, map=0.598)], 0.01)
    assert found.precision == "fp32"
    assert words in found.advice[0].sentence
    assert [figures.speed for figures in found.rows] == ["reference", "within noise"]


def test_a_smaller_file_that_is_as_fast_and_as_accurate_is_shipped():
    found = recommend([row("fp32"), row("fp16", 0.99, 0.05, model_bytes=2_000_000)], 0.01)
    assert found.precision == "fp16"
    assert [figures.optimal for figures in found.rows] == [False, True]


def test_without_fp32_nothing_is_recommended_and_the_reason_is_said():
    found = recommend([row("int8", latency_ratio=None)], 0.01)
    assert (found.runtime, found.precision) == (None, None)
    assert "no fp32 artifact" in found.sentence


def test_the_fastest_runtime_is_shipped_of_all_that_may_be():
    fast = row("fp32", runtime="openvino", latency_ms=3.0)
    found = recommend([row("fp32"), row("int8", 0.5), fast], 0.01)
    assert (found.runtime, found.precision) == ("openvino", "fp32")
    assert [advice.precision for advice in found.advice] == ["int8", "fp32"]
