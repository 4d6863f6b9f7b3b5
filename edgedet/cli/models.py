"""`edgedet models`: the names in the zoo, and a configuration to train one of them with."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from edgedet.cli.output import JsonOption, open_output


def run(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Print a training configuration for this one.", show_default=False
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """List the detectors of the zoo.

    Parameters and multiply-adds are those with 80 classes. With a name, print a whole training configuration
    for it, to be edited: edgedet models NAME > detector.toml
    """
    from edgedet.models.zoo import ZOO
    from edgedet.training.example import example_config

    with open_output(json) as output:
        if name is not None:
            config = example_config(name)
            output.line(config.removesuffix("\n"))
            output.json({"name": name, "config": config})
            return
        output.table(
            ("name", "backbone", "input", "params M", "MMACs", "good for"),
            [
                (name, e.backbone, f"{e.size}x{e.size}", f"{e.params_m:.2f}", f"{e.macs_m:.0f}", e.summary)
                for name, e in ZOO.items()
            ],
        )
        output.json({"rows": [{"name": name, **asdict(entry)} for name, entry in ZOO.items()]})
