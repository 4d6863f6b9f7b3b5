"""Plots of other commands' reports for the page: what each layer costs, and latency against mAP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgedet.report.charts import Chart, Point, scatter_chart
from edgedet.report.wording import megabytes, milliseconds, points, signed_points

if TYPE_CHECKING:
    from edgedet.recommend import Figures, Recommendation

_NAMED_LAYERS = 6
_HIGHEST_DB = 80.0
_COLOURS = 6


class LayerCost(Protocol):
    """What quantizing one layer alone costs, as a row of `edgedet sensitivity` says it."""

    @property
    def layer(self) -> str:
        """Its name."""

    @property
    def snr_db(self) -> Mapping[str, float]:
        """Of every raw output."""

    @property
    def map_drop(self) -> float | None:
        """MAP that is lost, 0..1."""


class Sensitivities(Protocol):
    """All layers in the order of the graph, as `edgedet sensitivity` reports them."""

    @property
    def encoding(self) -> str:
        """Name of the encoding."""

    @property
    def images(self) -> int:
        """How many they were measured on."""

    @property
    def layers(self) -> Sequence[LayerCost]:
        """At least one."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A section of the page: a heading, sentences and a plot."""

    heading: str
    sentences: tuple[str, ...]
    chart: Chart
    note: str


def sensitivity_plot(found: Sensitivities) -> Plot:
    """Signal to noise of every raw output with each layer alone quantized, the worst layers named.

    Args:
        found: Of `edgedet sensitivity`; at least one layer.
    """
    outputs = list(found.layers[0].snr_db)
    worst = sorted(found.layers, key=lambda one: min(one.snr_db.values()))[:_NAMED_LAYERS]
    dots, paths = [], []
    for number, output in enumerate(outputs):
        values = [min(one.snr_db[output], _HIGHEST_DB) for one in found.layers]
        colour = f"c{number % _COLOURS}"
        paths.append((colour, list(enumerate(values))))
        for index, (one, value) in enumerate(zip(found.layers, values, strict=True)):
            named = one in worst and one.snr_db[output] == min(one.snr_db.values())
            hint = f"{one.layer}, {output}: {one.snr_db[output]:.1f} dB"
            dots.append(Point(index, value, colour, hint, one.layer if named else ""))
    chart = scatter_chart(
        "Signal to noise of each raw output with one layer quantized, by layer",
        dots,
        "layer, in the order of the graph",
        "output SNR, dB",
        paths=[(colour, [(float(a), b) for a, b in path]) for colour, path in paths],
        x_ticks=False,
        legend=[(f"c{number % _COLOURS}", name) for number, name in enumerate(outputs)],
    )
    return Plot(
        "What quantizing each layer alone costs",
        tuple(_layer_sentence(one) for one in worst[:3]),
        chart,
        f"{found.encoding}, on {found.images} images; lower is worse, {_HIGHEST_DB:g} dB stands for more.",
    )


def _layer_sentence(one: LayerCost) -> str:
    cost = "" if one.map_drop is None else f", {signed_points(-one.map_drop)} points of mAP"
    return f"{one.layer}: {min(one.snr_db.values()):.1f} dB{cost}"


def pareto_plot(found: Recommendation) -> Plot:
    """Latency against mAP of every artifact, and what to ship.

    Args:
        found: Of `edgedet recommend`; at least one artifact.
    """
    runtimes = list(dict.fromkeys(row.runtime for row in found.rows))
    largest = max(row.model_bytes for row in found.rows)
    dots = [_figures(row, found, f"c{runtimes.index(row.runtime) % _COLOURS}", largest) for row in found.rows]
    chart = scatter_chart(
        "Latency against mAP of every artifact",
        dots,
        "median latency of a frame, ms",
        "mAP",
        from_zero=True,
        limit=None if not found.float_map else 100 * (1 - found.max_drop) * found.float_map,
        legend=[(f"c{index % _COLOURS}", name) for index, name in enumerate(runtimes)],
    )
    return Plot(
        "Which artifact to ship",
        (found.sentence, *(one.sentence for one in found.advice)),
        chart,
        "Filled: no other artifact of the runtime is as good in latency, mAP and size, and better in one. "
        "Area: size of the artifact. Line: the least mAP that may be shipped.",
    )


def _figures(row: Figures, found: Recommendation, colour: str, largest: int) -> Point:
    name = f"{row.runtime} {row.precision}"
    hint = f"{name}: {milliseconds(row.latency_ms)}, mAP {points(row.map)}, {megabytes(row.model_bytes)}"
    radius = 4 + 7 * (row.model_bytes / largest) ** 0.5
    is_chosen = (row.runtime, row.precision) == (found.runtime, found.precision)
    return Point(row.latency_ms, 100 * row.map, colour, hint, name, is_chosen, radius, row.optimal)
