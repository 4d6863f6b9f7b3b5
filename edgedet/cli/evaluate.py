"""`edgedet evaluate`: average precision of a detector on labelled images."""

from __future__ import annotations

import typer

from edgedet.cli.options import (
    DataOption,
    ModelArgument,
    PrecisionOption,
    RuntimeOption,
    SplitOption,
    ThreadsOption,
)
from edgedet.cli.output import JsonOption, lost_images, open_output, percent
from edgedet.cli.progress import Bars, LogOption
from edgedet.data import open_dataset
from edgedet.errors import DataError
from edgedet.evaluate import evaluate
from edgedet.pipeline import load


def run(
    model: ModelArgument,
    data: DataOption,
    split: SplitOption = None,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    log: LogOption = None,
    json: JsonOption = None,
) -> None:
    """Measure average precision.

    COCO's and VOC's, over all classes and for each. The exit code is 1 if images of the data set are missing
    or cannot be read.
    """
    dataset = open_dataset(data, split)
    with open_output(json) as output, load(model, runtime, precision, threads) as pipeline:
        with Bars(log=log) as bars:
            report = evaluate(pipeline, dataset, bars)
        if not report.boxes:
            raise DataError(
                "there is nothing to measure precision against",
                got=f"no boxes in {dataset.root} ({dataset.summary})",
                expected="images with boxes, as COCO json, Pascal VOC or YOLO",
                fix="point --data at labelled images; `edgedet detect` and `edgedet parity` need no boxes",
            )
        output.line(f"{pipeline.runtime.name} {pipeline.spec.precision} on {dataset.summary}")
        if report.left_out_line:
            output.line(report.left_out_line)
        output.line()
        output.table(
            ("class", "boxes", "AP", "AP50", "VOC07 AP50", "VOC10 AP50"),
            [
                *(
                    (c.label, c.boxes, *map(percent, (c.ap, c.ap50, c.voc07_ap50, c.voc10_ap50)))
                    for c in report.classes
                ),
                (
                    "all",
                    report.boxes,
                    *map(percent, (report.map, report.map50, report.voc07_map50, report.voc10_map50)),
                ),
            ],
        )
        output.line()
        sizes = (report.map75, report.map_small, report.map_medium, report.map_large)
        output.table(("AP75", "small", "medium", "large"), [tuple(map(percent, sizes))])
        output.json(
            {
                "runtime": pipeline.runtime.name,
                "precision": pipeline.spec.precision,
                "data_summary": dataset.summary.record().model_dump(mode="json"),
                **report.model_dump(mode="json"),
            }
        )
    if lost_images(dataset):
        raise typer.Exit(1)
