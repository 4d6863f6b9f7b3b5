"""A whole training run: configuration and data in, a checkpoint out.

The entry point is `train(config_path, data=None, output=None, *, weights=None, resume=False, track=silent,
started=None, report=None)`. Run it with `edgedet train CONFIG.toml --data DIR --output DIR`, or in several
processes with `torchrun --nproc-per-node N -m edgedet train CONFIG.toml --data DIR --output DIR`.
"""

from __future__ import annotations

import copy
import importlib.metadata
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from edgedet import registry
from edgedet.data import Dataset, open_dataset
from edgedet.errors import UsageError
from edgedet.evaluate import AccuracyReport
from edgedet.files import write_atomically
from edgedet.models.checkpoint import CheckpointInfo, load_state, read_state, round_to_half, save_checkpoint
from edgedet.models.detector import Detector, build_detector
from edgedet.models.initial import load_initial_weights
from edgedet.progress import Track, silent
from edgedet.training.config import PRETRAINED, TrainConfig, read_train_config
from edgedet.training.dataset import TrainingSamples, batch_indices, loader
from edgedet.training.distributed import Group, process_group
from edgedet.training.evaluation import evaluate_detector
from edgedet.training.history import EpochRecord, write_log, write_plot
from edgedet.training.loop import Trainer
from edgedet.training.start import SMALLEST_SIDE, RunStart, SplitStart, check_boxes, check_images, small_boxes
from edgedet.training.state import STATE_FILE, Origin, RunState, check_origin
from edgedet.training.state import load_state as load_run
from edgedet.training.state import save_state as save_run

# Enough for the statistics of a layer: each image gives thousands of positions.
_STATISTICS_IMAGES = 32
_TOOLS = ("edgedet", "torch", "torchvision", "timm")


@dataclass(frozen=True, slots=True, eq=False)
class TrainingResult:
    """What a run made.

    Attributes:
        checkpoint: The averaged weights, `NAME.safetensors`.
        history: All epochs.
        accuracy: Of the checkpoint on the evaluation split, if there is one.
    """

    checkpoint: Path
    history: tuple[EpochRecord, ...]
    accuracy: AccuracyReport | None


def train(
    config_path: Path,
    data: Path | str | None = None,
    output: Path | None = None,
    *,
    weights: Path | str | None = None,
    quantized: bool = False,
    resume: bool = False,
    track: Track = silent,
    started: Callable[[RunStart], None] | None = None,
    report: Callable[[EpochRecord], None] | None = None,
) -> TrainingResult:
    """Train a detector.

    Args:
        config_path: TOML of `TrainConfig`.
        data: Data set; by default the configuration's `data.path`.
        output: Folder for `NAME.safetensors`, `config.toml`, `log.csv`, `plot.png` and the state to resume
            from; by default `runs/NAME`.
        weights: What to start from; by default the configuration's `weights`.
        quantized: Go on in 8 bits from the weights of the same detector trained in float.
        resume: Go on with the run in `output`, on the same images, wherever they lie now, and in as many
            processes. An interrupted run loses the epoch that it was in.
        track: Wraps the steps of each epoch.
        started: Called before the first epoch, in the first process only.
        report: Called after each epoch, in the first process only.

    Raises:
        ConfigError: The configuration is wrong.
        DataError: The data set cannot be read, or has no box of the detector's classes.
        CheckpointError: The weights to start from do not fit.
        UsageError: There is no data set, `output` holds a run or the checkpoint's name is taken there, or
            there is nothing to resume, or not with this configuration, these images or this number of
            processes.
        TrainingError: The loss is not finite.
    """
    config = read_train_config(config_path, quantized=quantized)
    path = str(data or config.data.path)
    if not path:
        raise UsageError(
            "no data to train on",
            got="neither --data nor data.path in the configuration",
            expected="a data set",
            fix="pass --data DIR",
        )
    folder = output or Path("runs") / config.detector.name
    if not resume:
        _check_free(folder, config.detector.name)
    state = load_run(folder, config) if resume else None
    start = "" if state else str(weights or config.weights)
    if config.quantized and not resume:
        _check_is_trained(start)
    with process_group() as group:
        run = _Run(config, path, start, folder, group, track if group.is_first else silent, state)
        if group.is_first:
            write_atomically(folder / "config.toml", config_path.read_text("utf-8"))
            if started is not None:
                started(run.start)
        return run.finish(run.epochs(state.history if state else (), report or (lambda _: None)))


def _check_free(folder: Path, name: str) -> None:
    """Refuse to write over a run or a checkpoint."""
    if (folder / STATE_FILE).exists():
        raise UsageError(
            f"{folder} holds a run already",
            got=f"a file {STATE_FILE}",
            expected="a new or empty folder",
            fix="--resume goes on with it; or choose another --output",
        )
    if (folder / _checkpoint_name(name)).exists():
        raise UsageError(
            f"{folder} holds a detector of this name already",
            got=f"a file {_checkpoint_name(name)}",
            expected="a new or empty folder",
            fix="choose another --output, or another detector.name in the configuration",
        )


def _check_is_trained(weights: str) -> None:
    """Refuse to quantize what has not been trained."""
    if weights in ("", PRETRAINED):
        raise UsageError(
            "quantization-aware training has nothing to start from",
            got="no weights" if not weights else "the weights of a backbone",
            expected="a checkpoint of this detector, trained in float",
            fix="train without --qat first, then pass its checkpoint with --weights",
        )


def _held_still(detector: Detector, device: torch.device) -> Detector:
    """A detector that is only asked."""
    return detector.to(device).eval().requires_grad_(False)


def _checkpoint_name(name: str) -> str:
    return f"{name}.safetensors"


def _command(arguments: Sequence[str]) -> str:
    """The command line, without the folders of this machine."""
    shown = [Path(word).name if Path(word).is_absolute() else word for word in arguments if word != "train"]
    return shlex.join(["edgedet", "train", *shown])


class _Run:
    """The state of a run between its epochs.

    Args:
        config: Of the run.
        data: Data set.
        weights: File to start from, "pretrained", or "" for none.
        folder: Of the run.
        group: The processes that train together.
        track: Wraps what takes long.
        state: Where to go on, None at the start.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: str,
        weights: str,
        folder: Path,
        group: Group,
        track: Track,
        state: RunState | None,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.folder, self.group, self.track = config, folder, group, track
        self.dataset = self._open(data, config.data.train)
        check_boxes(self.dataset)
        self.evaluation = self._open(data, config.data.evaluate) if config.data.evaluate else None
        self.origin = Origin.of(self.dataset, group.size)
        if state:
            check_origin(state.origin, self.origin, folder)
        self.detector = build_detector(config.detector, pretrained=weights == PRETRAINED)
        self.samples = TrainingSamples(
            self.dataset,
            self.detector.spec(),
            config.augmentation,
            seed=config.seed,
            cache_bytes=config.data.cache_bytes if config.data.cache else 0,
            track=track,
        )
        check_images(self.dataset)  # those that were read for the cache are known to be whole
        self.teacher: Detector | None = None
        origin = self._load_weights(weights, state)
        steps = len(batch_indices(len(self.samples), config.batch_size, config.seed, 0, group))
        self.trainer = Trainer(self.detector.to(group.device), config, steps, group, self.teacher)
        self.accuracy: AccuracyReport | None = None
        if state:
            self._restore(state)
        self.start = RunStart(
            data=self.dataset.root.name or str(self.dataset.root),
            training=SplitStart.of(self.dataset),
            evaluation=None if self.evaluation is None else SplitStart.of(self.evaluation),
            labels=config.detector.labels,
            weights=f"the state in {folder}" if state else origin,
            folder=str(folder),
            epochs=config.epochs,
            epochs_done=len(state.history) if state else 0,
            warnings=small_boxes(*self.samples.boxes_below(SMALLEST_SIDE), config.detector.input.size_hw),
        )

    def epochs(
        self, history: tuple[EpochRecord, ...], report: Callable[[EpochRecord], None]
    ) -> tuple[EpochRecord, ...]:
        """Train what is left."""
        for epoch in range(len(history), self.config.epochs):
            batches = loader(self.samples, self.config, epoch, self.group)
            title = f"Epoch {epoch + 1}/{self.config.epochs}"
            record = self.trainer.run_epoch(epoch, self.track(batches, title, len(batches)))
            if self.group.is_first:
                if (epoch + 1) % self.config.evaluate_every == 0 or epoch + 1 == self.config.epochs:
                    record = self._measured(record)
                history = (*history, record)
                self._save(history)
                report(record)
            else:
                history = (*history, record)
            self.group.wait()
        return history

    def finish(self, history: tuple[EpochRecord, ...]) -> TrainingResult:
        """Write the checkpoint and the plot."""
        checkpoint = self.folder / _checkpoint_name(self.config.detector.name)
        if self.group.is_first:
            if self.config.half:
                round_to_half(self.average)
                self.accuracy = None  # that of the rounded weights
            if self.evaluation is not None and self.accuracy is None:
                self.accuracy = evaluate_detector(self.average, self.evaluation, self.track)
            save_checkpoint(checkpoint, self.average, self._info())
            write_plot(self.folder / "plot.png", history)
        self.group.wait()
        return TrainingResult(checkpoint, history, self.accuracy)

    @property
    def average(self) -> Detector:
        """The averaged detector."""
        module = self.trainer.average.module
        assert isinstance(module, Detector)
        return module

    def _load_weights(self, weights: str, state: RunState | None) -> str:
        """Load what to start from; returns in words what that is."""
        if self.config.quantized:
            return self._quantize(weights, state)
        if not weights:
            return "random weights"
        if weights == PRETRAINED:
            return "the ImageNet weights of timm (backbone)"
        statistics = partial(self.samples.plain_images, _STATISTICS_IMAGES)
        return f"{weights} ({load_initial_weights(self.detector, Path(weights), statistics)})"

    def _quantize(self, weights: str, state: RunState | None) -> str:
        """Replace the detector by one that rounds, and keep the float one to learn from where that is asked.

        Ranges are those of the state where there is one.
        """
        quantized_detector = registry.TRAINABLE.load("int8")
        if state is not None:
            self.teacher = self._teacher_of(state)
            self.detector = quantized_detector(self.detector, None)
            return ""
        load_state(self.detector, read_state(Path(weights)), source=weights)
        if self.config.qat.distillation:
            self.teacher = _held_still(copy.deepcopy(self.detector), self.group.device)
        images = self.config.qat.images
        self.detector = quantized_detector(self.detector.eval(), self.dataset, images, self.track)
        return f"{weights}, ranges from {min(images, len(self.dataset))} images"

    def _teacher_of(self, state: RunState) -> Detector | None:
        """The float detector that a run learned from."""
        if not self.config.qat.distillation:
            return None
        teacher = build_detector(self.config.detector)
        load_state(teacher, state.teacher, source=self.folder / STATE_FILE)
        return _held_still(teacher, self.group.device)

    def _restore(self, state: RunState) -> None:
        """Take the weights and the optimizer to where they were."""
        source = self.folder / STATE_FILE
        load_state(self.detector, state.detector, source=source)
        load_state(self.average, state.average, source=source)
        self.trainer.optimizer.load_state_dict(state.optimizer)

    def _open(self, data: str, split: str) -> Dataset:
        return open_dataset(data, split or None, labels=self.config.detector.labels)

    def _measured(self, record: EpochRecord) -> EpochRecord:
        if self.evaluation is None:
            return record
        self.accuracy = evaluate_detector(self.average, self.evaluation, self.track)
        return record.model_copy(update={"map": self.accuracy.map, "map50": self.accuracy.map50})

    def _save(self, history: tuple[EpochRecord, ...]) -> None:
        trainer = self.trainer
        state = RunState(
            self.config,
            self.origin,
            history,
            self.detector.state_dict(),
            trainer.average.module.state_dict(),
            trainer.optimizer.state_dict(),
            {} if self.teacher is None else self.teacher.state_dict(),
        )
        save_run(self.folder, state)
        write_log(self.folder / "log.csv", history)

    def _info(self) -> CheckpointInfo:
        metrics = {}
        if self.accuracy is not None:
            values = {"map": self.accuracy.map, "map50": self.accuracy.map50, "map75": self.accuracy.map75}
            values |= {f"ap/{one.label}": one.ap for one in self.accuracy.classes}
            metrics = {name: round(value, 5) for name, value in values.items() if value is not None}
        root = self.dataset.root.name or str(self.dataset.root)
        return CheckpointInfo(
            data=f"{root} {self.config.data.train}: {self.dataset.summary}",
            metrics=metrics,
            command=_command(sys.argv[1:]),
            training=self.config.model_dump_json(),
            tools={name: importlib.metadata.version(name) for name in _TOOLS},
        )
