"""What a run needs to go on after an interruption: one file, written whole, read without pickles."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgedet.errors import CheckpointError, UsageError
from edgedet.files import write_atomically
from edgedet.training.config import TrainConfig
from edgedet.training.history import EpochRecord

STATE_FILE = "state.pt"


@dataclass(frozen=True, slots=True, eq=False)
class RunState:
    """State after a whole epoch; the data of the next one follow from the seed and its number.

    Attributes:
        config: Of the run.
        history: Epochs done.
        detector: State dict of what is trained.
        average: State dict of the moving average.
        optimizer: State dict.
    """

    config: TrainConfig
    history: tuple[EpochRecord, ...]
    detector: dict[str, Any]
    average: dict[str, Any]
    optimizer: dict[str, Any]


def save_state(folder: Path, state: RunState) -> None:
    """Write the state into a run's folder, atomically."""
    data = io.BytesIO()
    torch.save(
        {
            "config": state.config.model_dump_json(),
            "history": [record.model_dump_json() for record in state.history],
            "detector": state.detector,
            "average": state.average,
            "optimizer": state.optimizer,
        },
        data,
    )
    write_atomically(folder / STATE_FILE, data.getvalue())


def load_state(folder: Path, config: TrainConfig) -> RunState:
    """Read the state of an interrupted run.

    Raises:
        UsageError: There is none, or it is of another configuration.
        CheckpointError: The file is damaged.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        raise UsageError(
            f"there is no run to resume in {folder}",
            got=f"no {STATE_FILE}",
            expected="the --output of an interrupted run",
            fix="check --output, or start without --resume",
        )
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
        state = RunState(
            TrainConfig.model_validate_json(document["config"]),
            tuple(EpochRecord.model_validate_json(text) for text in document["history"]),
            document["detector"],
            document["average"],
            document["optimizer"],
        )
    except (pickle.UnpicklingError, EOFError, OSError, RuntimeError, ValueError, KeyError, TypeError) as exc:
        raise CheckpointError(
            f"cannot resume from {path}",
            got=str(exc).split("\n", 1)[0][:200],
            expected="a whole file of this version of edgedet",
            fix="start again without --resume",
        ) from exc
    _check_same(state.config, config, folder)
    return state


def _check_same(saved: TrainConfig, given: TrainConfig, folder: Path) -> None:
    # How images reach the process and where they lie does not change what is learned.
    free = {"workers": 0, "evaluate_every": 1}
    old, new = (config.model_copy(update=free).model_dump() for config in (saved, given))
    changed = [key for key in new if new[key] != old[key]]
    if changed:
        raise UsageError(
            f"the run in {folder} has another configuration",
            got=f"different {', '.join(changed)}",
            expected="the configuration that it was started with",
            fix="restore these keys, or start a new run in another --output",
        )
