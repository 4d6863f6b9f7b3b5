"""`edgedet train`: a configuration and images to a checkpoint.

Also `torchrun --nproc-per-node N -m edgedet train`: then every process runs this, and the first one prints.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from edgedet.cli.extras import needs_extra
from edgedet.cli.output import JsonOption, Output, notice, open_output, percent
from edgedet.cli.progress import Bars, LogOption

if TYPE_CHECKING:
    from edgedet.training.history import EpochRecord
    from edgedet.training.start import RunStart


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
    qat: Annotated[
        bool,
        typer.Option("--qat", help="Quantization-aware: go on in 8 bits from --weights trained in float."),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    log: LogOption = None,
    json: JsonOption = None,
) -> None:
    """Train a detector.

    Also on several devices: torchrun --nproc-per-node N -m edgedet train CONFIG.toml

    On GPUs, batch normalisation takes the images of all processes; on CPUs, those of each process only.
    """
    is_first = os.environ.get("RANK", "0") == "0"
    with open_output(json if is_first else None) as output:
        told = _Told(output)
        progress = Bars(log=log) if is_first else Bars(Console(quiet=True))
        with progress as bars, told.how_to_resume():
            with bars.step("Importing PyTorch"), needs_extra("train"):
                from edgedet.training.train import train

            result = train(
                config,
                data,
                output_path,
                weights=weights,
                quantized=qat,
                resume=resume,
                track=bars,
                started=told.start,
                report=told.epoch,
            )
        if not is_first:
            return
        if result.accuracy is not None:
            output.line(f"mAP {percent(result.accuracy.map)}, mAP50 {percent(result.accuracy.map50)}")
        output.line(f"wrote {result.checkpoint}")
        accuracy = None if result.accuracy is None else result.accuracy.model_dump(mode="json")
        history = [record.model_dump(mode="json") for record in result.history]
        output.json(
            {
                "start": told.run.model_dump(mode="json") if told.run else None,
                "checkpoint": str(result.checkpoint),
                "history": history,
                "accuracy": accuracy,
            }
        )


class _Told:
    """What a run has told so far; only the first of several processes is told anything."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._epochs_saved = 0
        self.run: RunStart | None = None

    def start(self, start: RunStart) -> None:
        """Print what is about to be done."""
        self.run, self._epochs_saved = start, start.epochs_done
        self._output.line(str(start))
        for line in start.left_out_lines:
            self._output.line(line)
        for warning in start.warnings:
            notice(f"edgedet: {warning}")

    def epoch(self, record: EpochRecord) -> None:
        """Print an epoch, which is saved by now."""
        self._epochs_saved = record.epoch
        self._output.line(str(record))

    @contextmanager
    def how_to_resume(self) -> Iterator[None]:
        """Say it of a run that is ended from outside after something was saved."""
        try:
            yield
        except Exception:  # an error says itself what to do
            raise
        except BaseException:
            if self.run is not None and self._epochs_saved:
                done = f"{self._epochs_saved} of {self.run.epochs} epochs are saved in {self.run.folder}"
                notice(f"edgedet: {done}; the same command with --resume goes on")
            raise
