"""Plots as values: bars, lines, dots and words with their places, which a template draws as SVG.

All places are in the units of the drawing, whose y axis points down. Colours are names that the page's style
knows, so that a plot follows its dark mode, and words are escaped where they are written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgedet.parity.distributions import Histogram

_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 14.0, 20.0, 40.0
_LETTER, _LINE = 6.7, 15.0  # width and height of a letter of a label


@dataclass(frozen=True, slots=True)
class Bar:
    """A filled rectangle; `hint` appears where a pointer rests on it."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    hint: str


@dataclass(frozen=True, slots=True)
class Line:
    """A path of straight lines; `style` is "axis", "grid", "limit" or a colour."""

    points: tuple[tuple[float, float], ...]
    style: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A circle, filled or only its edge."""

    x: float
    y: float
    radius: float
    colour: str
    filled: bool
    hint: str


@dataclass(frozen=True, slots=True)
class Words:
    """One line of text; `anchor` is "start", "middle" or "end", `turned` runs upwards."""

    x: float
    y: float
    text: str
    anchor: str = "start"
    style: str = "tick"
    turned: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """One plot; `title` says in words what it shows, for those who cannot see it."""

    title: str
    width: float
    height: float
    bars: tuple[Bar, ...] = ()
    lines: tuple[Line, ...] = ()
    dots: tuple[Dot, ...] = ()
    words: tuple[Words, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Series:
    """One histogram of a plot with its name and colour."""

    name: str
    colour: str
    histogram: Histogram


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to places along one axis."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a value."""
        span = self.high - self.low or 1.0
        return round(self.start + (value - self.low) / span * (self.end - self.start), 2)


def histogram_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    ticks: Sequence[float],
    *,
    y_label: str = "pairs",
    first: float = 0.0,
    limit: float | None = None,
    limit_name: str = "budget",
    size: tuple[float, float] = (340.0, 200.0),
) -> Chart:
    """Histograms of the same bins stacked on each other; all bins are as wide, whatever they span.

    Args:
        title: What it shows.
        series: At least one; all of the same edges.
        x_label: The measure, with its unit.
        ticks: Bounds that are named.
        y_label: What is counted.
        first: Nothing below it is drawn, unless something was counted there.
        limit: Where a line is drawn.
        limit_name: What the line is.
        size: Width and height.
    """
    edges = series[0].histogram.edges
    counts = [one.histogram.counts for one in series]
    totals = [sum(column) for column in zip(*counts, strict=True)]
    begin = _first_bin(edges, totals, first)
    top = _round_up(max(totals[begin:], default=0))
    x = Scale(begin, len(totals), _LEFT, size[0] - _RIGHT)
    y = Scale(0, top, size[1] - _BOTTOM, _TOP)
    bars = []
    for index in range(begin, len(totals)):
        base = 0
        for one in series:
            count = one.histogram.counts[index]
            if count:
                hint = f"{one.name}: {count} from {edges[index]:g} to {edges[index + 1]:g}"
                high, width = y(base + count), x(index + 1) - x(index)
                bars.append(
                    Bar(x(index), high, round(width - 1, 2), round(y(base) - high, 2), one.colour, hint)
                )
                base += count
    lines, words = _frame(size, x_label, y_label)
    for count in dict.fromkeys((0, top // 2, top)):
        lines.append(Line(((x(begin), y(count)), (x(len(totals)), y(count))), "grid"))
        words.append(Words(_LEFT - 5, y(count) + 4, f"{count:g}", "end"))
    for tick in ticks:
        place = _place(edges, tick)
        if place >= begin:
            words.append(Words(x(place), size[1] - _BOTTOM + 15, _short(tick), "middle"))
    if limit is not None and begin <= (place := _place(edges, limit)) <= len(totals):
        lines.append(Line(((x(place), _TOP - 4), (x(place), size[1] - _BOTTOM)), "limit"))
        is_right = x(place) > size[0] / 2
        words.append(
            Words(
                x(place) + (-4 if is_right else 4),
                _TOP - 6,
                f"{limit_name} {limit:g}",
                "end" if is_right else "start",
                "limit",
            )
        )
    legend = tuple((one.colour, one.name) for one in series) if len(series) > 1 else ()
    return Chart(title, *size, tuple(bars), tuple(lines), (), tuple(words), legend)


@dataclass(frozen=True, slots=True)
class Point:
    """One dot of a plot; without a label it has no words beside it."""

    x: float
    y: float
    colour: str
    hint: str
    label: str = ""
    bold: bool = False
    radius: float = 2.5
    filled: bool = True


def scatter_chart(
    title: str,
    points: Sequence[Point],
    x_label: str,
    y_label: str,
    *,
    paths: Sequence[tuple[str, Sequence[tuple[float, float]]]] = (),
    x_ticks: bool = True,
    from_zero: bool = False,
    limit: float | None = None,
    legend: Sequence[tuple[str, str]] = (),
    size: tuple[float, float] = (720.0, 330.0),
) -> Chart:
    """Dots on two axes, with labels that do not lie on each other.

    Args:
        title: What it shows.
        points: At least one.
        x_label: Of the axis, with its unit; `y_label` likewise.
        y_label: As x_label.
        paths: Lines by colour, in the units of the axes.
        x_ticks: Whether the x axis has numbers.
        from_zero: Whether the x axis begins at 0.
        limit: Where a horizontal line is drawn.
        legend: Colours and what they stand for.
        size: Width and height.
    """
    heights = [point.y for point in points] + ([] if limit is None else [limit])
    low, high = _spread(heights)
    left, right = _spread([point.x for point in points])
    x = Scale(0.0 if from_zero else left, right, _LEFT, size[0] - _RIGHT)
    y = Scale(low, high, size[1] - _BOTTOM, _TOP)
    lines, words = _frame(size, x_label, y_label)
    for value in _round_ticks(low, high):
        lines.append(Line(((_LEFT, y(value)), (size[0] - _RIGHT, y(value))), "grid"))
        words.append(Words(_LEFT - 5, y(value) + 4, f"{value:g}", "end"))
    if x_ticks:
        words += [
            Words(x(value), size[1] - _BOTTOM + 15, f"{value:g}", "middle")
            for value in _round_ticks(x.low, x.high)
        ]
    if limit is not None:
        lines.append(Line(((_LEFT, y(limit)), (size[0] - _RIGHT, y(limit))), "limit"))
    lines += [Line(tuple((x(a), y(b)) for a, b in path), colour) for colour, path in paths]
    dots = [Dot(x(p.x), y(p.y), round(p.radius, 2), p.colour, p.filled, p.hint) for p in points]
    words += _labels([(dot, point) for dot, point in zip(dots, points, strict=True) if point.label], size)
    return Chart(title, *size, (), tuple(lines), tuple(dots), tuple(words), tuple(legend))


def _frame(size: tuple[float, float], x_label: str, y_label: str) -> tuple[list[Line], list[Words]]:
    bottom = size[1] - _BOTTOM
    words = [
        Words((_LEFT + size[0] - _RIGHT) / 2, size[1] - 6, x_label, "middle", "axis"),
        Words(11, (_TOP + bottom) / 2, y_label, "middle", "axis", turned=True),
    ]
    return [Line(((_LEFT, bottom), (size[0] - _RIGHT, bottom)), "axis")], words


def _labels(marked: Sequence[tuple[Dot, Point]], size: tuple[float, float]) -> Iterator[Words]:
    """Beside its dot, right or left, or the nearest free line above or below."""
    taken: list[tuple[float, float, float]] = []  # left, right, y
    for dot, point in marked:
        width = _LETTER * len(point.label) * (1.08 if point.bold else 1)
        for step in range(40):
            shift = (step // 4 + 1) // 2 * _LINE * (-1 if step // 4 % 2 else 1)
            is_left = step % 2 == 1
            start = dot.x - dot.radius - 4 - width if is_left else dot.x + dot.radius + 4
            y = dot.y + 4 + shift
            fits = start > _LEFT and start + width < size[0] - 2 and _TOP - 8 < y < size[1] - _BOTTOM - 2
            if fits and not any(
                start < end and start + width > begin and abs(y - at) < _LINE for begin, end, at in taken
            ):
                taken.append((start, start + width, y))
                yield Words(
                    round(start, 2), round(y, 2), point.label, "start", "bold" if point.bold else "tick"
                )
                break


def _first_bin(edges: Sequence[float], totals: Sequence[int], first: float) -> int:
    """The bin to begin with: that of `first`, or the first with anything in it."""
    wanted = max(0, math.floor(_place(edges, first) + 1e-9))
    filled = next((index for index, total in enumerate(totals) if total), wanted)
    return min(wanted, filled, len(totals) - 1)


def _place(edges: Sequence[float], value: float) -> float:
    """Where a value lies, in bins from the first."""
    for index, (low, high) in enumerate(pairwise(edges)):
        if value < high or index == len(edges) - 2:
            return index + min(max((value - low) / (high - low), 0.0), 1.0)
    return 0.0


def _round_up(count: int) -> int:
    """The least of 2, 4, 6, 8 and 10 times a power of ten that is not below."""
    power = int(10.0 ** math.floor(math.log10(max(count, 1))))
    return next(step * power for step in (2, 4, 6, 8, 10) if step * power >= count)


def _round_ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers between two values."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _spread(values: Sequence[float]) -> tuple[float, float]:
    """Extremes with a tenth of room, so that no dot lies on the frame."""
    low, high = min(values), max(values)
    room = 0.1 * (high - low) or max(abs(high), 1.0) * 0.1
    return low - room, high + room


def _short(value: float) -> str:
    """A number without the zeros of its exponent."""
    return f"{value:g}".replace("e-0", "e-").replace("e+0", "e")
