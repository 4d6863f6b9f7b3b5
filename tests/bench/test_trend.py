"""What changed from run to run, and what of it is more than noise."""

from __future__ import annotations

import pytest

from edgedet.bench.history import Entry
from edgedet.bench.trend import change_between, sparkline, trends_of

ONE = Entry(
    started="2026-01-01T00:00:00+00:00",
    device="local",
    cpu="a processor",
    cores=2,
    os="Linux",
    detector="detector",
    checkpoint_sha256="c",
    images="8 images",
    scenario="single-stream",
    noise_floor=0.01,
    packages={"onnxruntime": "1.2"},
    runtime="ort",
    precision="int8",
    threads=1,
    model_sha256="m",
    frames=2000,
    measured_s=60.0,
    p50_ms=10.0,
    p90_ms=11.0,
    p99_ms=12.0,
    p50_low_ms=9.9,
    p50_high_ms=10.1,
    fps=100.0,
    ratio=2.0,
    low=1.9,
    high=2.1,
    verdict="intended",
    processes=8,
)


def with_p50(p50_ms: float, **changes) -> Entry:
    times = {"p50_ms": p50_ms, "p50_low_ms": 0.99 * p50_ms, "p50_high_ms": 1.01 * p50_ms}
    return ONE.model_copy(update=times | changes)


@pytest.mark.parametrize(
    # Both intervals are 1 % wide to each side, 1.4 % together; the floor adds 1 %.
    ("p50_ms", "verdict"),
    [(10.2, "noise"), (10.3, "slower"), (9.8, "noise"), (9.7, "faster")],
)
def test_an_arrow_needs_more_than_both_intervals_and_the_floor(p50_ms, verdict):
    change = change_between(ONE, with_p50(p50_ms))
    assert change.verdict == verdict
    assert change.share == pytest.approx(p50_ms / 10 - 1)
    assert change.noise == pytest.approx(0.0242, abs=3e-4)


def test_the_larger_floor_of_the_two_counts():
    assert change_between(ONE, with_p50(11.0)).verdict == "slower"
    assert change_between(ONE, with_p50(11.0, noise_floor=0.1)).verdict == "noise"


def test_a_run_without_an_interval_proves_no_change():
    change = change_between(ONE, with_p50(20.0, p50_low_ms=None))
    assert (change.verdict, change.noise) == ("noise", None)


@pytest.mark.parametrize("processes", [1, None])
def test_a_run_with_one_process_and_no_floor_proves_no_change(processes):
    alone = with_p50(20.0, processes=processes, noise_floor=None)
    for before, after in ((ONE, alone), (alone, ONE)):
        change = change_between(before, after)
        assert (change.verdict, change.noise) == ("noise", None)
    assert change_between(ONE, with_p50(20.0, processes=processes)).verdict == "slower"
    assert change_between(ONE, with_p50(20.0, noise_floor=None)).verdict == "slower"


def test_each_step_is_against_the_run_before_and_the_first():
    (trend,) = trends_of([ONE, with_p50(11.0), with_p50(12.1)])
    assert [step.since_previous and step.since_previous.share for step in trend.steps] == [None, 0.1, 0.1]
    assert [step.since_first and step.since_first.share for step in trend.steps] == [None, 0.1, 0.21]
    assert trend.sparkline == "▁▄█"


def test_what_differs_from_the_run_before_is_named():
    after = with_p50(10.0, model_sha256="n", packages={"onnxruntime": "1.3", "openvino": "2"})
    (trend,) = trends_of([ONE, after, after])
    assert trend.steps[1].changed == ("model", "onnxruntime 1.2 to 1.3", "openvino none to 2")
    assert trend.steps[2].changed == ()


@pytest.mark.parametrize(
    "other",
    [
        {"device": "ssh://board"},
        {"cpu": "another"},
        {"detector": "another"},
        {"images": "others"},
        {"runtime": "openvino"},
        {"precision": "fp32"},
        {"threads": 2},
        {"batch": 2},
        {"scenario": "sustained"},
    ],
)
def test_what_cannot_be_compared_has_a_trend_of_its_own(other):
    assert len(trends_of([ONE, ONE])) == 1
    assert len(trends_of([ONE, ONE.model_copy(update=other)])) == 2


def test_a_sparkline_reaches_from_the_least_to_the_largest():
    assert sparkline([1, 8, 4]) == "▁█▄"
    assert sparkline([5, 5]) == "▁▁"
