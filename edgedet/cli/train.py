"""`edgedet train`: a configuration and images to a checkpoint.

Also `torchrun --nproc-per-node N -m edgedet train`: then every process runs this, and the first one prints.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from edgedet.cli.extras import needs_extra
from edgedet.cli.output import JsonOption, open_output, percent
from edgedet.cli.progress import Bars


def run(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="What to train, and how.")],
    data: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="A data set with boxes; the configuration's if not given."),
    ] = None,
    output_path: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="The run's folder; runs/NAME if not given.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="Weights to start from, or `pretrained`.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    json: JsonOption = None,
) -> None:
    """Train a detector.

    Also on several devices: torchrun --nproc-per-node N -m edgedet train CONFIG.toml

    On GPUs, batch normalisation takes the images of all processes; on CPUs, those of each process only.
    """
    with needs_extra("train"):
        from edgedet.training.train import train

    is_first = os.environ.get("RANK", "0") == "0"
    with open_output(json if is_first else None) as output:
        with Bars() as bars:
            result = train(
                config,
                data,
                output_path,
                weights=weights,
                resume=resume,
                track=bars,
                report=lambda record: output.line(str(record)),
            )
        if not is_first:
            return
        if result.accuracy is not None:
            output.line(f"mAP {percent(result.accuracy.map)}, mAP50 {percent(result.accuracy.map50)}")
        output.line(f"wrote {result.checkpoint}")
        accuracy = None if result.accuracy is None else result.accuracy.model_dump(mode="json")
        history = [record.model_dump(mode="json") for record in result.history]
        output.json({"checkpoint": str(result.checkpoint), "history": history, "accuracy": accuracy})
