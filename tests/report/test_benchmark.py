"""The page of a benchmark: one file that asks for nothing, with a curve for each row."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from edgedet.bench.coverage import Coverage
from edgedet.bench.report import BenchmarkReport, ColdStart, Moment, Scenario, Sustained
from edgedet.report.benchmark import curve_of, write_benchmark

SERIES = tuple(
    Moment(
        t_s=float(second), p50_ms=10 + second / 10, p90_ms=12.0, mhz=3000 - 10 * second, celsius=50 + second
    )
    for second in range(1, 41)
)


@pytest.fixture
def report(benchmark: BenchmarkReport) -> BenchmarkReport:
    changes = {
        "series": SERIES,
        "sustained": Sustained(
            window_s=20, first_p50_ms=11, last_p50_ms=13, first_fps=90, last_fps=77, ratio=1.182
        ),
        "cold_start": ColdStart(
            processes=3,
            interpreter_ms=400,
            import_ms=80,
            open_ms=60,
            first_inference_ms=20,
            first_frame_ms=25,
            total_ms=565,
        ),
        "coverage": Coverage(verdict="fallback", reason="it ran in float"),
    }
    rows = (benchmark.rows[0], *(row.model_copy(update=changes) for row in benchmark.rows[1:]))
    scenario = Scenario(
        name="single-stream",
        duration_s=60,
        least_frames=1024,
        least_measured_s=61,
        least_measured_frames=2000,
    )
    return benchmark.model_copy(update={"rows": rows, "scenario": scenario})


def test_the_page_asks_for_nothing_and_escapes_what_comes_from_outside(report, tmp_path: Path):
    write_benchmark(tmp_path / "page.html", report)
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"<script|<link|<img|https?://|url\(", text)
    assert "&lt;" in text
    assert 'content="width=device-width' in text


def test_the_page_has_a_line_of_the_table_for_each_row_and_a_curve_where_time_was_kept(
    report, tmp_path: Path
):
    write_benchmark(tmp_path / "page.html", report)
    text = (tmp_path / "page.html").read_text("utf-8")
    drawings = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    assert len(drawings) == 3
    assert [len(one.get("points").split()) for one in drawings[0]] == [40, 40, 40]
    assert text.count("<tr") == 1 + 4 + 1 + 3
    assert text.count('<tr class="bad">') == 3
    assert "single-stream: at least 2000 frames and 61 s a row" in text.replace("&#39;", "'")


def test_the_page_of_a_sweep_has_a_column_of_batches_and_what_each_gains(report, tmp_path: Path):
    write_benchmark(tmp_path / "single.html", report)
    assert "batch" not in (tmp_path / "single.html").read_text("utf-8")
    swept = report.rows[1].model_copy(
        update={"batch": 4, "gain_over_batch_1": 1.25, "gain_interval": (1.2, 1.3)}
    )
    write_benchmark(tmp_path / "page.html", report.model_copy(update={"rows": (*report.rows, swept)}))
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "<th>batch</th>" in text
    assert '<td data-name="batch">4</td>' in text
    gain = '<td data-name="× batch 1">1.25</td>'
    assert f'{gain}<td data-name="95 % interval">1.20 to 1.30</td>' in text
    assert f"{swept.runtime} {swept.precision} batch 4, 1 thread" in text


def test_what_the_processor_means_for_int8_is_said_where_it_was_recorded(
    report, on_old_processor, tmp_path: Path
):
    write_benchmark(tmp_path / "page.html", on_old_processor(report))
    assert "x86_64: AVX2; no AVX-512" in (tmp_path / "page.html").read_text("utf-8")
    write_benchmark(tmp_path / "page.html", report)
    assert "AVX" not in (tmp_path / "page.html").read_text("utf-8")


def test_a_curve_rises_where_a_frame_takes_longer_and_falls_where_the_clock_does(report):
    curve = curve_of(report.rows[1])

    def heights(points: str) -> list[float]:
        return [float(point.partition(",")[2]) for point in points.split()]

    assert heights(curve.p50) == sorted(heights(curve.p50), reverse=True), "y goes down in a drawing"
    assert heights(curve.mhz) == sorted(heights(curve.mhz))
    assert curve.end_s == "40 s"
    assert "first 20 s 11.00 ms, last 13.00 ms: 1.182 times as long" in curve.note
    assert "clock 2990 to 2600 MHz; 51 to 90 °C" in curve.note


def test_a_machine_that_tells_no_clock_has_no_line_of_it(report):
    bare = tuple(Moment(t_s=m.t_s, p50_ms=m.p50_ms, p90_ms=m.p90_ms) for m in SERIES)
    curve = curve_of(report.rows[1].model_copy(update={"series": bare, "sustained": None}))
    assert (curve.mhz, curve.note) == ("", "this machine tells neither clock nor temperature")


def test_each_cell_has_the_name_of_its_column_for_narrow_screens(report, tmp_path: Path):
    write_benchmark(tmp_path / "page.html", report)
    text = (tmp_path / "page.html").read_text("utf-8")
    columns = re.findall(r"<th>(.*?)</th>", text)
    named = re.findall(r'<td data-name="(.*?)">', text)
    body = text.count("<tr") - 2  # less the heads of two tables
    assert len(named) >= body * 8
    assert set(named) == set(columns)
    best = max(report.rows, key=lambda row: row.fps)
    assert f"Fastest: {best.runtime} {best.precision}" in text
