"""What is measured: artifacts of a bundle or a lone one, and the images that they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from edgedet import registry
from edgedet.bundle import MANIFEST, companions, open_bundle, runtime_of
from edgedet.data.dataset import Dataset, nothing_to
from edgedet.errors import UsageError
from edgedet.files import sha256_of
from edgedet.preprocess import Image
from edgedet.selection import Skipped, select
from edgedet.spec import DetectorSpec, Precision

# Different images, so that neither the caches nor the number of objects are those of a single one.
IMAGES = 8


@dataclass(frozen=True, slots=True)
class Contender:
    """One artifact to be measured.

    Attributes:
        path: The bundle, or the lone artifact.
        runtime: Name of the runtime.
        precision: Precision of the artifact.
        model_bytes: Size of its files.
        model_sha256: Of the file that the runtime opens.
        float_layers: What its recipe keeps float.
        batch: Images of one inference.
    """

    path: Path
    runtime: str
    precision: Precision
    model_bytes: int
    model_sha256: str = ""
    float_layers: tuple[str, ...] = ()
    batch: int = 1


def find_contenders(
    source: Path,
    runtimes: Sequence[str] | None,
    precisions: Sequence[str] | None,
    leave_out: Sequence[str],
    batches: Sequence[int] | None = None,
) -> tuple[DetectorSpec, list[Contender], list[Skipped]]:
    """The detector's spec, what is measured of it, and what is not.

    Without `batches`, artifacts of one image are, and a lone one in the batch that it has.

    Raises:
        UsageError: The source lacks what was asked for.
        BundleError: It cannot be read.
    """
    if source.is_file() and source.name != MANIFEST:
        spec, contender = _lone(source, runtimes, precisions, batches)
        return spec, [contender], []
    bundle = open_bundle(source.parent if source.name == MANIFEST else source)
    artifacts, skipped = select(bundle, runtimes, precisions, leave_out, batches or (1,))
    contenders = [
        Contender(
            bundle.root,
            artifact.runtime,
            artifact.precision,
            artifact.bytes,
            artifact.files[0].sha256,
            artifact.quantization.float_layers if artifact.quantization else (),
            artifact.batch,
        )
        for artifact in artifacts
    ]
    return bundle.spec, contenders, skipped


def _lone(
    path: Path,
    runtimes: Sequence[str] | None,
    precisions: Sequence[str] | None,
    batches: Sequence[int] | None,
) -> tuple[DetectorSpec, Contender]:
    name = runtime_of(path)
    spec: DetectorSpec = registry.RUNTIMES.load(name).read_spec(path)
    batch = spec.input.batch
    own = (name, spec.precision, batch)
    if any(
        asked and list(asked) != [one]
        for asked, one in zip((runtimes, precisions, batches), own, strict=True)
    ):
        asked = [*(runtimes or ()), *(precisions or ()), *(f"batch {n}" for n in batches or ())]
        raise UsageError(
            f"{path} is one artifact",
            got=" ".join(asked),
            expected=f"{name} {spec.precision}" + (f" batch {batch}" if batches or batch > 1 else ""),
            fix="leave those options out, or give the bundle that has what they name",
        )
    size = sum(file.stat().st_size for file in (path, *companions(path)) if file.is_file())
    float_layers = spec.quantization.float_layers if spec.quantization else ()
    return spec, Contender(path, name, spec.precision, size, sha256_of(path), float_layers, batch)


def first_frames(dataset: Dataset) -> tuple[list[Image], str]:
    """Images that are shown in turn, and how a report calls them.

    Raises:
        DataError: The data set has no readable image.
    """
    frames = [image.image_bgr for image in islice(dataset, IMAGES)]
    if not frames:
        raise nothing_to("detect in", dataset)
    sizes = sorted({f"{frame.shape[1]}x{frame.shape[0]}" for frame in frames})
    shown = ", ".join(sizes[:3]) + (" and others" if len(sizes) > 3 else "")
    name = " ".join(filter(None, (dataset.root.resolve().name, dataset.split)))
    return frames, f"the first {len(frames)} images of {name}, shown in turn, {shown}"
