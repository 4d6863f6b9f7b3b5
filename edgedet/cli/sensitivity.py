"""`edgedet sensitivity`: what quantizing each layer alone costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgedet import registry
from edgedet.cli.extras import needs_extra
from edgedet.cli.options import SplitOption
from edgedet.cli.output import JsonOption, Output, open_output, percent
from edgedet.cli.progress import Bars, LogOption
from edgedet.data import open_dataset
from edgedet.files import check_writable

if TYPE_CHECKING:
    from edgedet_calibration.sensitivity import SensitivityReport

_PLOT = "sensitivity.png"


def run(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A .safetensors file of `edgedet train`.")
    ],
    calibration: Annotated[
        str,
        typer.Option(metavar="DIR", help="Images to calibrate on and to compare outputs on, as for --data."),
    ],
    split: SplitOption = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="DIR", help="Labelled images to measure the mAP of the worst layers on."
        ),
    ] = None,
    data_split: Annotated[
        str | None, typer.Option("--data-split", metavar="NAME", help="A split of --data, such as val.")
    ] = None,
    target: Annotated[
        str, typer.Option(help="Whose kernels are simulated: one of " + ", ".join(registry.TARGETS) + ".")
    ] = "onnx",
    recipe: Annotated[Path | None, typer.Option(metavar="TOML", help="How int8 is quantized.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Images that outputs are compared on.")] = 8,
    worst: Annotated[int, typer.Option(min=1, help="Layers whose mAP is measured on --data.")] = 10,
    output_path: Annotated[
        Path | None,
        typer.Option("--output", metavar="FOLDER", help=f"Where to write the plot, {_PLOT}."),
    ] = None,
    log: LogOption = None,
    json: JsonOption = None,
) -> None:
    """Show what quantizing each layer alone costs.

    Signal to noise of every raw output against float, on real images, and with --data the mAP that the worst
    layers cost. A layer's name in `float_layers` of a recipe keeps it float.
    """
    with needs_extra("export"):
        from edgedet_calibration.sensitivity import SensitivityRequest, report_sensitivity
    if output_path is not None:
        with needs_extra("export"):
            from edgedet_calibration.sensitivity_plot import write_plot
        output_path.mkdir(parents=True, exist_ok=True)
        check_writable(output_path / _PLOT)
    request = SensitivityRequest(
        checkpoint=checkpoint,
        calibration=open_dataset(calibration, split),
        encoding=registry.TARGETS.load(target).encodings["int8"],
        recipe=recipe,
        data=None if data is None else open_dataset(data, data_split),
        images=images,
        worst=worst,
    )
    with open_output(json) as output:
        with Bars(log=log) as bars:
            report = report_sensitivity(request, bars)
        show(report, output)
        if output_path is not None:
            write_plot(output_path / _PLOT, report)
            output.line(f"\nwrote {output_path / _PLOT}")
        output.json(report.model_dump(mode="json"))


def show(report: SensitivityReport, output: Output) -> None:
    """Print the layers, the worst first."""
    names = list(report.layers[0].snr_db)
    output.line(f"{report.encoding}, one layer quantized at a time, on {report.images} images")
    if report.map_float is not None:
        output.line(f"mAP {percent(report.map_float)} in float on {report.map_images} images")
    output.line()
    output.table(
        ("layer", "kind", "MACs %", *(f"{name} dB" for name in names), "mAP lost"),
        [
            (
                row.layer,
                row.kind,
                f"{100 * row.macs_share:.2f}",
                *(f"{row.snr_db[name]:.1f}" for name in names),
                percent(row.map_drop),
            )
            for row in report.worst()
        ],
    )
