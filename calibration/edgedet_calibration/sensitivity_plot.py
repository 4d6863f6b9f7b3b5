"""Sensitivities as a picture: layers in the order of the graph, the worst named."""

from __future__ import annotations

import io
from pathlib import Path

from edgedet.files import write_atomically
from edgedet_calibration.sensitivity import SensitivityReport

_NAMED = 8
_HIGHEST_DB = 80.0
_ROOM_FOR_NAMES = 0.4


def write_plot(path: Path, report: SensitivityReport) -> None:
    """Draw the signal to noise of every output with each layer alone quantized as PNG."""
    from matplotlib.figure import Figure

    names = [row.layer for row in report.layers]
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for output in report.layers[0].snr_db:
        # An output that a layer does not reach, or barely, is out of the picture.
        values = [min(row.snr_db[output], _HIGHEST_DB + 1) for row in report.layers]
        axes.plot(range(len(names)), values, ".-", lw=0.8, label=output)
    for row in report.worst(_NAMED):
        place = (names.index(row.layer), row.worst_snr_db)
        axes.annotate(
            row.layer,
            place,
            (0, -6),
            textcoords="offset points",
            rotation=90,
            fontsize="x-small",
            ha="center",
            va="top",
        )
    lowest = min(row.worst_snr_db for row in report.layers)
    axes.set(xlabel="layer, in the order of the graph", ylabel="output SNR of this layer alone, dB")
    axes.set_ylim(lowest - (_HIGHEST_DB - lowest) * _ROOM_FOR_NAMES, _HIGHEST_DB)
    axes.set_title(f"{report.encoding}, images: {report.images}", fontsize="medium")
    axes.legend()
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    write_atomically(path, data.getvalue())
