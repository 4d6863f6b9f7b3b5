"""Plots as values: what is counted is drawn, at its place, and labels can be read."""

from __future__ import annotations

import re

import pytest

from edgedet.parity.distributions import UNIT_EDGES, Histogram
from edgedet.report.charts import Point, Series, histogram_chart, scatter_chart
from edgedet.report.differences import artifact_charts, class_table, device_grid


def histogram(**counts: int) -> Histogram:
    """Counts by bin number, as b7=3."""
    values = [0] * 50
    for name, count in counts.items():
        values[int(name[1:])] = count
    return Histogram(edges=UNIT_EDGES, counts=tuple(values))


def test_bars_are_as_high_as_counts_and_stand_on_each_other():
    first, second = histogram(b30=10, b40=4), histogram(b40=4)
    chart = histogram_chart(
        "scores", [Series("lost", "lost", first), Series("gained", "gained", second)], "score", (0, 1)
    )
    tall, low, upper = chart.bars
    assert (tall.height, low.height, upper.height) == pytest.approx(
        (tall.height, tall.height * 0.4, tall.height * 0.4)
    )
    assert upper.y + upper.height == pytest.approx(low.y)
    assert low.x == upper.x > tall.x
    assert [bar.colour for bar in chart.bars] == ["lost", "lost", "gained"]
    assert low.hint == "lost: 4 from 0.8 to 0.82"
    assert dict(chart.legend) == {"lost": "lost", "gained": "gained"}


def test_what_lies_below_the_first_bin_that_is_asked_for_is_drawn_all_the_same():
    one = [Series("pairs", "c0", histogram(b45=3))]
    narrow = histogram_chart("", one, "IoU", (0, 0.5, 1), first=0.5, limit=0.8)
    assert [word.text for word in narrow.words if word.style == "tick"] == ["0", "2", "4", "0.5", "1"]
    wide = histogram_chart("", [Series("pairs", "c0", histogram(b5=1, b45=3))], "IoU", (0.1, 0.5), first=0.5)
    assert len(wide.bars) == 2
    assert [word.text for word in wide.words if word.style == "limit"] == []


def test_the_limit_is_drawn_where_its_value_lies():
    one = [Series("pairs", "c0", histogram(b45=3))]
    chart = histogram_chart("", one, "IoU", (0.8,), limit=0.8, limit_name="the same from")
    (line,) = [line for line in chart.lines if line.style == "limit"]
    (tick,) = [word for word in chart.words if word.text == "0.8"]
    assert line.points[0][0] == pytest.approx(tick.x, abs=0.1)
    assert "the same from 0.8" in [word.text for word in chart.words]


def test_an_empty_histogram_is_an_empty_plot():
    assert histogram_chart("", [Series("pairs", "c0", histogram())], "x", (0, 1)).bars == ()


def test_labels_of_dots_in_one_place_do_not_lie_on_each_other():
    points = [Point(10.0, 50.0 + 0.01 * i, "c0", "", f"openvino int8-{i}") for i in range(6)]
    chart = scatter_chart("", [*points, Point(20.0, 60.0, "c1", "")], "ms", "mAP", from_zero=True)
    labels = [word for word in chart.words if word.text.startswith("openvino")]
    assert len(labels) == 6
    places = [(round(word.y / 15), word.x > chart.dots[0].x) for word in labels]
    assert len(set(places)) == 6
    assert all(0 < word.x < 720 and 0 < word.y < 330 for word in labels)
    assert "0" in [word.text for word in chart.words]


def test_axes_have_round_numbers():
    points = [Point(7.52, 62.38, "c0", ""), Point(15.3, 62.12, "c0", "")]
    chart = scatter_chart("", points, "ms", "mAP", from_zero=True)
    ticks = [word.text for word in chart.words if word.style == "tick"]
    assert all(re.fullmatch(r"\d+(\.\d)?(5|0)?", text) for text in ticks), ticks
    assert len(ticks) >= 8


def test_the_artifact_that_failed_is_unfolded(parity):
    charts = artifact_charts(parity)
    assert [(one.name, one.unfolded) for one in charts] == [("ort fp32", False), ("ort int8", True)]
    assert [len(one.charts) for one in charts] == [4, 4]
    bare = [row.model_copy(update={"distributions": None}) for row in parity.rows]
    assert artifact_charts(parity.model_copy(update={"rows": tuple(bare)})) == ()


def test_the_table_of_classes_marks_the_class_that_is_over_its_budget(parity):
    table = class_table(parity)
    assert table.artifacts == ("ort int8",)
    assert table.note == "The same to two digits in every class: ort fp32."
    (_, _, _, (without,)), (label, average, boxes, (cell,)) = table.rows
    assert (without.text, without.bad) == ("–", False)
    assert (label, average, boxes) == ("cell", "50.00", "12")
    assert (cell.text, cell.below, cell.above, cell.bad) == ("-8.00", 100.0, 0.0, True)


def test_without_labelled_boxes_there_is_no_table_of_classes(parity):
    rows = tuple(
        row.model_copy(
            update={"classes": tuple(one.model_copy(update={"ap_delta": None}) for one in row.classes)}
        )
        for row in parity.rows
    )
    assert class_table(parity.model_copy(update={"rows": rows})) is None


def test_devices_are_columns_where_there_are_several(parity):
    assert device_grid(parity.rows) is None
    first = parity.rows[0].model_copy(update={"device": "ssh://pi@host"})
    grid = device_grid((*parity.rows, first))
    assert grid.devices == ("local", "ssh://pi@host")
    (_, _, float_cells), (_, _, int8_cells) = grid.rows
    assert [cell.state for cell in float_cells] == ["good", "good"]
    assert float_cells[0].text == "99.99 %, -1.00 mAP"
    assert [(cell.state, cell.text) for cell in int8_cells] == [
        ("bad", "fails at raw outputs"),
        ("", "not compared"),
    ]
