"""`edgedet benchmark`: how long it measures, what it keeps, and what it shows of what was kept."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from command import Command, check_refusal

from edgedet.bench import BenchmarkReport
from edgedet.cli import benchmark
from edgedet.cli.options import seconds_from
from edgedet.errors import UsageError

SHORT = ("--runtimes", "ort", "--duration", "0.1")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("30M", 1800), (" 2 h ", 7200), (".5", 0.5)]
)
def test_a_duration_is_seconds_minutes_or_hours(text: str, seconds: float) -> None:
    assert seconds_from(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "5d", "-3", "1e3", "0", "0.05", "1h30m", "inf"])
def test_a_duration_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot read --duration"):
        seconds_from(text)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, dict[str, Any]]]:
    """What `run_benchmark` was asked for; it ends the command."""
    calls: list[tuple[float, dict[str, Any]]] = []

    def record(*arguments: Any, **options: Any) -> BenchmarkReport:
        calls.append((options["duration_s"], options))
        raise UsageError("recorded", got="a", expected="b", fix="c")

    monkeypatch.setattr(benchmark, "run_benchmark", record)
    return calls


@pytest.mark.parametrize(
    ("options", "seconds", "noise", "sustained", "cold_starts"),
    [
        ((), 60, True, False, 3),
        (("--quick",), 5, False, False, 1),
        (("--quick", "--aa"), 5, True, False, 1),
        (("--no-aa",), 60, False, False, 3),
        (("--duration", "2m"), 120, True, False, 3),
        (("--duration", "59"), 59, False, False, 1),
        (("--sustained", "--duration", "30m"), 1800, False, True, 3),
    ],
)
def test_what_is_measured_follows_from_the_time(
    edgedet: Command,
    asked: list[Any],
    bundle: Path,
    options: Any,
    seconds: Any,
    noise: Any,
    sustained: Any,
    cold_starts: Any,
) -> None:
    edgedet("benchmark", bundle, *options)
    ((found, passed),) = asked
    assert found == seconds
    assert (passed["noise"], passed["sustained"], passed["cold_starts"]) == (noise, sustained, cold_starts)


def test_quick_and_a_duration_exclude_each_other(edgedet: Command, bundle: Path) -> None:
    check_refusal(edgedet("benchmark", bundle, "--quick", "--duration", "9"), 2, "--quick and --duration 9")


def test_no_bundle_is_refused_and_both_ways_on_are_named(edgedet: Command) -> None:
    check_refusal(edgedet("benchmark"), 2, "nothing to measure", "--compare")


def test_how_long_it_takes_is_said_before(edgedet: Command, bundle: Path) -> None:
    result = edgedet("benchmark", bundle, *SHORT)
    assert result.code == 0, result.stderr
    assert "edgedet: 1 measurement of at least 0.1 s each, in turns: about" in result.stderr


def test_results_are_kept_and_compared(edgedet: Command, bundle: Path, history: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert edgedet("benchmark", bundle, *SHORT).code == 0
    assert history.is_file()
    target = tmp_path / "trends.json"
    result = edgedet("benchmark", "--compare", "--json", target)
    assert result.code == 0, result.stderr
    (trend,) = json.loads(target.read_text())["trends"]
    first, second = trend["steps"]
    assert (first["since_previous"], second["changed"]) == (None, [])
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{trend['detector']} ort fp32, 1 thread  ")
    assert f"{second['entry']['p50_ms']:.2f}" in result.stdout
    assert f"{100 * second['since_previous']['share']:+.1f} %" in result.stdout
    of_this = edgedet("benchmark", bundle, "--compare")
    assert of_this.stdout == result.stdout


def test_a_trend_of_another_detector_is_left_out(edgedet: Command, bundle: Path, history: Path) -> None:
    assert edgedet("benchmark", bundle, *SHORT).code == 0
    with sqlite3.connect(history) as connection:
        connection.execute("UPDATE runs SET detector = 'another'")
    assert "holds nothing of this detector" in edgedet("benchmark", bundle, "--compare").stdout
    assert "another ort fp32" in edgedet("benchmark", "--compare").stdout


def test_nothing_is_kept_where_that_is_asked_for(edgedet: Command, bundle: Path, history: Path) -> None:
    assert edgedet("benchmark", bundle, *SHORT, "--no-history").code == 0
    assert not history.exists()


def test_a_comparison_without_a_history_makes_none(edgedet: Command, history: Path) -> None:
    check_refusal(edgedet("benchmark", "--compare"), 2, "nothing to compare", str(history))
    assert not history.exists()


def test_a_broken_history_is_refused_before_anything_is_measured(
    edgedet: Command, asked: list[Any], bundle: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "notes.txt"
    broken.write_text("notes of the user, and no database; " * 50)
    before = broken.read_bytes()
    result = edgedet("benchmark", bundle, "--history", broken)
    check_refusal(result, 2, "cannot keep the history", "--no-history")
    assert asked == []
    assert broken.read_bytes() == before


def test_a_home_that_cannot_be_written_costs_the_history_and_not_the_measurement(
    edgedet: Command, bundle: Path, monkeypatch: pytest.MonkeyPatch, history: Path
) -> None:
    monkeypatch.setattr("edgedet.cli.trend._can_be_made", lambda path: False)
    result = edgedet("benchmark", bundle, *SHORT)
    assert result.code == 0
    assert f"{history} cannot be made, so this run is not kept" in result.stderr


def test_a_page_is_written_where_it_is_asked_for(edgedet: Command, bundle: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = edgedet("benchmark", bundle, *SHORT, "--html", page)
    assert f"wrote {page}" in result.stdout
    assert "<svg" in page.read_text("utf-8")
