"""What parity runs on a device: artifacts look at images there, from the file to detections.

The device reads and preprocesses images itself, by the code that was sent: a processor, an image decoder or a
kernel that gives something else there is found, and at which stage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from edgedet.boxes import Floats
from edgedet.bundle import Bundle, open_bundle
from edgedet.data.images import read_image
from edgedet.devices.records import Record, error_header
from edgedet.environment import read_environment
from edgedet.errors import DataError, EdgedetError
from edgedet.parity.view import View, open_alone
from edgedet.pipeline import RuntimeLike
from edgedet.preprocess import Geometry, Image, preprocess
from edgedet.spec import DetectorSpec, InputSpec

# Input tensors that differ from the host's are sent back, but of so many images only.
_MOST_TENSORS = 8


def tensor_sha256(tensor: Floats) -> str:
    """Of a tensor's bytes."""
    return hashlib.sha256(np.ascontiguousarray(tensor).data).hexdigest()


def views(order: Mapping[str, Any], root: Path, write: Callable[[Record], None]) -> None:
    """Write one record of what could be opened, then one an image.

    Args:
        order: `bundle`, a folder; `artifacts`, pairs of runtime and precision; `images`, each with its `path`
            and the `tensor_sha256` of the host's input tensor.
        root: What paths are relative to.
        write: Takes the records.
    """
    bundle = open_bundle(root / order["bundle"])
    with ExitStack() as stack:
        opened: list[RuntimeLike | None] = []
        about: list[dict[str, Any]] = []
        for runtime, precision in order["artifacts"]:
            try:
                opened.append(_open(bundle, runtime, precision, stack))
                about.append({"spec": opened[-1].spec.to_json()})  # type: ignore[union-attr]
            except EdgedetError as exc:
                opened.append(None)
                about.append(error_header(exc))
        write(Record({"opened": about, "environment": read_environment().model_dump(mode="json")}))
        sent = 0
        for image in order["images"]:
            try:
                pixels = read_image(root / image["path"])
            except DataError as exc:
                write(Record({"unread": str(exc)}))
                continue
            record = _look(opened, pixels, image["tensor_sha256"], sent < _MOST_TENSORS)
            sent += "tensors" in record.header
            write(record)


def intermediates(order: Mapping[str, Any], root: Path, write: Callable[[Record], None]) -> None:
    """Write one record an image with what an artifact's layers make of it.

    Args:
        order: `bundle`, `artifact` and `images` as for `views`.
        root: What paths are relative to.
        write: Takes the records.
    """
    bundle = open_bundle(root / order["bundle"])
    with ExitStack() as stack:
        name, precision = order["artifact"]
        runtime = _open(bundle, name, precision, stack)
        for image in order["images"]:
            tensor, _ = preprocess(read_image(root / image["path"]), runtime.spec.input)
            feeds = {runtime.spec.input.name: tensor}
            found = runtime.intermediates(feeds)  # type: ignore[attr-defined]
            arrays = {f"integers/{number}": one.integers for number, one in enumerate(found.tensors)}
            arrays |= {f"beside/{name}": array for name, array in found.outputs.items()}
            arrays |= {f"outputs/{name}": array for name, array in runtime.run(feeds).items()}
            grids = [(one.scale, one.zero_point) for one in found.tensors]
            write(Record({"grids": grids}, {"tensor": tensor, **arrays}))


def _open(bundle: Bundle, runtime: str, precision: str, stack: ExitStack) -> RuntimeLike:
    opened = open_alone(bundle, bundle.artifact(runtime, precision))
    stack.callback(opened.close)
    return opened


def _look(
    opened: list[RuntimeLike | None], image: Image, expected_sha256: str, may_send_tensors: bool
) -> Record:
    tensors: dict[InputSpec, tuple[Floats, Geometry]] = {}
    errors: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    differing: dict[str, str] = {}
    for number, runtime in enumerate(opened):
        if runtime is None:
            continue
        spec: DetectorSpec = runtime.spec
        try:
            if spec.input not in tensors:
                tensors[spec.input] = preprocess(image, spec.input)
            tensor, geometry = tensors[spec.input]
            arrays |= View.of(runtime, tensor, spec, geometry).to_arrays(f"{number}/")
        except EdgedetError as exc:
            errors[str(number)] = error_header(exc)
            continue
        found = tensor_sha256(tensor)
        if found != expected_sha256:
            differing[str(number)] = found
            if may_send_tensors:
                arrays[f"tensor/{found}"] = tensor
    return Record({"errors": errors, **({"tensors": differing} if differing else {})}, arrays)
