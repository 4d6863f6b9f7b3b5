"""What a run needs to go on after an interruption: one file, written whole, read without pickles."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgedet.data import Dataset
from edgedet.errors import CheckpointError, UsageError
from edgedet.files import write_atomically
from edgedet.spec import Value
from edgedet.training.config import TrainConfig
from edgedet.training.history import EpochRecord

STATE_FILE = "state.pt"


class Origin(Value):
    """What fixes the images of every step beside the configuration.

    Attributes:
        processes: How many train together.
        images: How many images the training split lists.
        image_ids_sha256: Of their names in order, wherever they lie.
    """

    processes: int
    images: int
    image_ids_sha256: str

    @staticmethod
    def of(dataset: Dataset, processes: int) -> Origin:
        """The origin of a run on a data set."""
        names = "\n".join(dataset.image_ids).encode("utf-8", "surrogateescape")
        return Origin(
            processes=processes,
            images=len(dataset),
            image_ids_sha256=hashlib.sha256(names).hexdigest(),
        )


@dataclass(frozen=True, slots=True, eq=False)
class RunState:
    """State after a whole epoch; the data of the next one follow from the seed and its number.

    Attributes:
        config: Of the run.
        origin: Of its images.
        history: Epochs done.
        detector: State dict of what is trained.
        average: State dict of the moving average.
        optimizer: State dict.
        teacher: State dict of the float detector that is learned from; empty without one.
    """

    config: TrainConfig
    origin: Origin
    history: tuple[EpochRecord, ...]
    detector: dict[str, Any]
    average: dict[str, Any]
    optimizer: dict[str, Any]
    teacher: dict[str, Any]


def save_state(folder: Path, state: RunState) -> None:
    """Write the state into a run's folder, atomically."""
    data = io.BytesIO()
    torch.save(
        {
            "config": state.config.model_dump_json(),
            "origin": state.origin.model_dump_json(),
            "history": [record.model_dump_json() for record in state.history],
            "detector": state.detector,
            "average": state.average,
            "optimizer": state.optimizer,
            "teacher": state.teacher,
            "pair_safe": state.config.quantized,
        },
        data,
    )
    write_atomically(folder / STATE_FILE, data.getvalue())


def load_state(folder: Path, config: TrainConfig) -> RunState:
    """Read the state of an interrupted run.

    Raises:
        UsageError: There is none, it is of another configuration, or an earlier version rounded otherwise.
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
            Origin.model_validate_json(document["origin"]),
            tuple(EpochRecord.model_validate_json(text) for text in document["history"]),
            document["detector"],
            document["average"],
            document["optimizer"],
            document["teacher"],
        )
    except (pickle.UnpicklingError, EOFError, OSError, RuntimeError, ValueError, KeyError, TypeError) as exc:
        raise CheckpointError(
            f"cannot resume from {path}",
            got=str(exc).split("\n", 1)[0][:200],
            expected="a whole file of this version of edgedet",
            fix="start again without --resume",
        ) from exc
    if state.config.quantized and not document.get("pair_safe"):
        raise UsageError(
            f"the run in {folder} cannot be resumed by this version",
            got="weights that an earlier version rounded at scales for processors with VNNI alone",
            expected="a run that was started with pair-safe scales",
            fix="start again without --resume",
        )
    _check_same(state.config, config, folder)
    return state


def check_origin(saved: Origin, found: Origin, folder: Path) -> None:
    """Refuse to go on with other images or in another number of processes.

    Raises:
        UsageError: One of them differs.
    """
    if saved.processes != found.processes:
        raise UsageError(
            f"the run in {folder} was started in another number of processes",
            got=str(found.processes),
            expected=str(saved.processes),
            fix=f"torchrun --nproc-per-node {saved.processes}, or start a new run in another --output",
        )
    if saved != found:
        raise UsageError(
            f"the run in {folder} was started on other images",
            got=f"{found.images} images, whose names have the hash {found.image_ids_sha256[:12]}",
            expected=f"{saved.images} images, whose names have the hash {saved.image_ids_sha256[:12]}",
            fix="pass the --data that it was started with, or start a new run in another --output",
        )


def _check_same(saved: TrainConfig, given: TrainConfig, folder: Path) -> None:
    old, new = _what_is_learned(saved), _what_is_learned(given)
    changed = [key for key in new if new[key] != old[key]]
    if changed:
        raise UsageError(
            f"the run in {folder} has another configuration",
            got=f"different {', '.join(changed)}",
            expected="the configuration that it was started with",
            fix="restore these keys, or start a new run in another --output",
        )


def _what_is_learned(config: TrainConfig) -> dict[str, Any]:
    """The keys that change it, with dots: not how images reach the process, nor where they lie."""
    data = config.data.model_copy(update={"path": "", "cache": True, "cache_bytes": 0})
    free = {"workers": 0, "evaluate_every": 1, "data": data}
    return dict(_flat(config.model_copy(update=free).model_dump()))


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
