"""Checkpoints: safetensors files that carry the configuration of their detector, and foreign weights.

Nothing here unpickles objects: `.pth` and `.pt` files are read with `weights_only=True`, `.npz` without
pickles.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from zipfile import BadZipFile

import numpy as np
import safetensors
import safetensors.torch
import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from edgedet.embedded import RANGES_KEY
from edgedet.errors import CheckpointError
from edgedet.files import sha256_of, write_atomically
from edgedet.models.config import DetectorConfig
from edgedet.models.detector import Detector, build_detector
from edgedet.spec import Provenance, Value

V = TypeVar("V", bound=Value)

_CONFIG, _INFO = "edgedet.config", "edgedet.info"
# What a detector is made of; a quantized one has ranges besides.
_PARTS = ("backbone.", "head.")
_LISTED_KEYS = 10
# Where training frameworks put the weights inside a saved dictionary.
_NESTED = ("state_dict", "model", "model_state_dict", "ema")


class CheckpointInfo(Value):
    """How a checkpoint came about.

    Attributes:
        data: What it was trained on, in words.
        metrics: Name to value, such as `map` on the test split.
        command: The command that trained it.
        training: The training configuration as JSON.
        tools: Package names to versions.
    """

    data: str = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    command: str = ""
    training: str = ""
    tools: dict[str, str] = Field(default_factory=dict)


class LearnedRanges(Value):
    """What quantization-aware training learned.

    Attributes:
        tensors: Lower and upper end of every quantized tensor, by node name of the captured detector.
        pair_safe: Weights were trained at scales that are safe on x86 processors without VNNI.
    """

    tensors: dict[str, tuple[float, float]]
    pair_safe: bool = False


def save_checkpoint(path: Path, detector: Detector, info: CheckpointInfo | None = None) -> None:
    """Write a detector as one safetensors file, atomically, with its configuration and `info` as metadata.

    Weights whose values float16 holds exactly (`round_to_half`) are stored as such. Ranges that were learned
    in quantization-aware training are kept as metadata.
    """
    state = {
        key: _smallest(value.detach().cpu().contiguous())
        for key, value in detector.state_dict().items()
        if key.startswith(_PARTS)
    }
    metadata = {
        _CONFIG: detector.config.model_dump_json(),
        _INFO: (info or CheckpointInfo()).model_dump_json(),
    }
    if ranges := detector.learned_ranges():
        learned = LearnedRanges(tensors=ranges, pair_safe=detector.has_pair_safe_weights)
        metadata[RANGES_KEY] = learned.model_dump_json()
    write_atomically(path, safetensors.torch.save(state, metadata))


def round_to_half(detector: Detector) -> None:
    """Round the weights of convolutions to float16, in place; all else keeps its precision."""
    with torch.no_grad():
        for value in detector.parameters():
            if value.ndim > 1:
                value.copy_(value.half())


def _smallest(value: Tensor) -> Tensor:
    half = value.half() if value.ndim > 1 else value
    return half if torch.equal(half.float(), value) else value


def load_checkpoint(path: Path, config: DetectorConfig | None = None) -> Detector:
    """Build the detector of a checkpoint and load its weights; evaluation mode, on the CPU.

    Args:
        path: A file written by `save_checkpoint`, or with `config` any file whose keys are the detector's.
        config: The detector to build (`edgedet.models.config.read_detector_config` reads one); by default the
            one that the file describes.

    Raises:
        CheckpointError: The file cannot be read, describes no detector, or does not fit the detector.
    """
    state = read_state(path)
    detector = build_detector(config or read_config(path))
    load_state(detector, state, source=path)
    return detector.eval()


def read_config(path: Path) -> DetectorConfig:
    """The configuration that a checkpoint carries.

    Raises:
        CheckpointError: It carries none, or one that this edgedet does not read.
    """
    return _read_metadata(path, _CONFIG, DetectorConfig)


def read_info(path: Path) -> CheckpointInfo:
    """How a checkpoint came about.

    Raises:
        CheckpointError: It does not say.
    """
    return _read_metadata(path, _INFO, CheckpointInfo)


def read_ranges(path: Path) -> LearnedRanges | None:
    """The ranges that quantization-aware training left in a checkpoint; None for one trained in float.

    Raises:
        CheckpointError: They cannot be read.
    """
    if path.suffix.lower() != ".safetensors" or not path.is_file() or RANGES_KEY not in _metadata(path):
        return None
    return _read_metadata(path, RANGES_KEY, LearnedRanges)


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except safetensors.SafetensorError:
        return {}  # `read_state` says what is wrong with it


def provenance_of(path: Path) -> Provenance:
    """What a bundle records of the checkpoint that it was exported from."""
    info = read_info(path)
    return Provenance(checkpoint_sha256=sha256_of(path), trained_on=info.data, tools=info.tools)


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by key from a .safetensors, .pth, .pt or .npz file.

    Raises:
        CheckpointError: There is no such file, or it holds no dictionary of tensors.
    """
    readers: dict[str, Callable[[Path], dict[str, Tensor]]] = {
        ".safetensors": safetensors.torch.load_file,
        ".pth": _read_torch,
        ".pt": _read_torch,
        ".npz": _read_npz,
    }
    if not path.is_file() or path.suffix.lower() not in readers:
        raise CheckpointError(
            f"cannot read weights from {path}",
            got=_kind_of(path),
            expected=f"a file ending in {', '.join(readers)}",
            fix="check the path; a bundle keeps its checkpoint in fp32/model.safetensors",
        )
    try:
        return readers[path.suffix.lower()](path)
    except (
        safetensors.SafetensorError,
        pickle.UnpicklingError,
        BadZipFile,
        EOFError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as exc:
        raise CheckpointError(
            f"cannot read weights from {path}",
            got=str(exc).split("\n", 1)[0][:200],
            expected="a whole file that holds tensors by name and nothing else",
            fix="fetch or save the file again; files with objects other than tensors are refused",
        ) from exc


def load_state(module: nn.Module, state: Mapping[str, Tensor], *, source: Path | str) -> None:
    """Load weights into a module, all of them or none.

    Raises:
        CheckpointError: Keys are missing or unexpected (the first ten of each are named), or shapes differ.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    wrong = [
        f"{key} {list(state[key].shape)} instead of {list(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or unexpected or wrong:
        parts = [
            f"{len(keys)} {word} ({_first(keys)})"
            for word, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
            if keys
        ]
        raise CheckpointError(
            f"the weights in {source} do not fit the detector",
            got="; ".join(parts),
            expected=f"the {len(own)} tensors of the detector, by name and shape",
            fix="use the configuration that the weights were trained with",
        )
    module.load_state_dict(dict(state))


def _first(keys: list[str]) -> str:
    more = len(keys) - _LISTED_KEYS
    return ", ".join(keys[:_LISTED_KEYS]) + (f", and {more} more" if more > 0 else "")


def _read_torch(path: Path) -> dict[str, Tensor]:
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    for key in _NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ValueError(f"a {type(loaded).__name__} that is not a dictionary of tensors")
    return dict(loaded)


def _read_npz(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def _kind_of(path: Path) -> str:
    if path.is_file():
        return f"a {path.suffix or 'nameless'} file"
    return "a folder" if path.is_dir() else "no such file"


def _read_metadata(path: Path, key: str, kind: type[V]) -> V:
    refusal = {
        "expected": "a .safetensors file written by edgedet",
        "fix": "pass a checkpoint of `edgedet train`, or its detector too: `edgedet export --config TOML`",
    }
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        raise CheckpointError(f"{path} does not describe its detector", got=_kind_of(path), **refusal)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(key)
        if text is None:
            raise CheckpointError(
                f"{path} does not describe its detector", got=f"no metadata {key!r}", **refusal
            )
        return kind.model_validate_json(text)
    except (safetensors.SafetensorError, ValidationError) as exc:
        raise CheckpointError(
            f"{path} does not describe its detector", got=str(exc).replace("\n", " ")[:200], **refusal
        ) from exc
