"""What a run reports of each epoch: a value, a CSV file and a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from edgedet.files import write_atomically
from edgedet.spec import Value

# Print has mAP in points; programs that read the log get what the records hold.
_COLUMNS = {"map": "map_fraction", "map50": "map50_fraction"}


class EpochRecord(Value):
    """One epoch.

    Attributes:
        epoch: Counted from 1.
        loss: Mean of the steps; `box_loss`, `class_loss` and `distillation_loss` are its terms.
        distillation_loss: Weighted as the configuration says; None where no float detector is learned from.
        learning_rate: Of the last step.
        seconds: Of training, without evaluation.
        map: COCO mAP of the averaged weights, 0..1, where it was measured; `map50` at IoU 0.5.
    """

    epoch: int
    loss: float
    box_loss: float
    class_loss: float
    distillation_loss: float | None = None
    learning_rate: float
    seconds: float
    map: float | None = None
    map50: float | None = None

    def __str__(self) -> str:
        text = f"epoch {self.epoch}: loss {self.loss:.3f}"
        text += f" (boxes {self.box_loss:.3f}, classes {self.class_loss:.3f}"
        text += ")" if self.distillation_loss is None else f", distillation {self.distillation_loss:.3f})"
        text += f", learning rate {self.learning_rate:.2e}, {self.seconds:.1f} s"
        if self.map is not None and self.map50 is not None:
            text += f", mAP {100 * self.map:.2f}, mAP50 {100 * self.map50:.2f}"
        return text


def write_log(path: Path, history: Sequence[EpochRecord]) -> None:
    """Write all epochs as CSV, one line each; the header says of mAP that it is a fraction."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS.get(name, name) for name in EpochRecord.model_fields)
    for record in history:
        writer.writerow(record.model_dump().values())
    write_atomically(path, text.getvalue())


def write_plot(path: Path, history: Sequence[EpochRecord]) -> None:
    """Draw loss and mAP, times 100, over the epochs as PNG; markers show a single epoch too."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    epochs = [record.epoch for record in history]
    axes.plot(epochs, [record.loss for record in history], ".-", color="tab:blue", label="loss")
    axes.set(xlabel="epoch", ylabel="loss", yscale="log")
    measured = [(record.epoch, 100 * record.map) for record in history if record.map is not None]
    if measured:
        right = axes.twinx()
        right.plot(*zip(*measured, strict=True), "o-", color="tab:orange", label="mAP")
        right.set(ylabel="mAP", ylim=(0, 100))
        figure.legend(loc="outside upper right", ncols=2)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    write_atomically(path, data.getvalue())
