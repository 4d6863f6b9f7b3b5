"""Image to detections: preprocess, runtime, decode and suppression joined in one place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from edgedet import registry
from edgedet.boxes import Floats
from edgedet.bundle import MANIFEST, Artifact, open_bundle, runtime_of
from edgedet.decode import decode, decode_batch
from edgedet.detections import Detections
from edgedet.errors import MissingError, UsageError, VendorError
from edgedet.preprocess import Image, preprocess, preprocess_batch
from edgedet.selection import FLOAT, check_precision
from edgedet.spec import PRECISIONS, DetectorSpec, Precision, TensorSpec

# The order in which a bundle's runtimes are tried when none is named.
# Others of the table come after these, and PyTorch, which is the reference, comes last.
_PREFERENCE = ("ort", "openvino", "tflite", "tensorrt")


class RuntimeLike(Protocol):
    """Tensors in, tensors out: the contract is in `edgedet_runtimes.shell`."""

    name: str
    spec: DetectorSpec
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        """Outputs by name."""

    def close(self) -> None:
        """Free what the vendor holds."""


class Pipeline:
    """A detector that is ready to run: call it with an image, or `detect_batch` where it takes several.

    Threads may share it; each process opens its own.

    Example:
        >>> import edgedet, cv2
        >>> detector = edgedet.load("bundle", runtime="openvino", precision="int8")  # doctest: +SKIP
        >>> detections = detector(cv2.imread("photo.jpg"))  # doctest: +SKIP
    """

    def __init__(self, runtime: RuntimeLike, spec: DetectorSpec | None = None) -> None:
        self.runtime = runtime
        self.spec = spec or runtime.spec
        self._tensors: list[Floats] = []  # those that no thread fills just now

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, by class id."""
        return self.spec.labels

    def __call__(
        self, image_bgr: Image, *, score_threshold: float | None = None, iou_threshold: float | None = None
    ) -> Detections:
        """Detect in one image, uint8 `[h, w, 3]` blue, green, red; thresholds default to the spec's.

        Raises:
            DataError: The image is none.
            UsageError: The artifact takes several images at once, or a threshold is not 0 to 1.
            VendorError: The runtime failed, or gave outputs that are not finite.
        """
        if self.spec.input.batch != 1:
            raise UsageError(
                "this detector takes several images at once",
                got="one image",
                expected=f"{self.spec.input.batch} in each inference",
                fix="call detect_batch with a list of as many, or open the artifact of one image",
            )
        with self._tensor() as empty:
            tensor, geometry = preprocess(image_bgr, self.spec.input, empty)
            outputs = self._outputs(tensor)
        return decode(
            outputs, self.spec, geometry, score_threshold=score_threshold, iou_threshold=iou_threshold
        )

    def detect_batch(
        self,
        images_bgr: Sequence[Image],
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
    ) -> list[Detections]:
        """Detect in `spec.input.batch` images with one inference; the detections of each, in their order.

        Raises:
            DataError: One of them is no image.
            UsageError: These are more or fewer images, or a threshold is not 0 to 1.
            VendorError: The runtime failed, or gave outputs that are not finite.
        """
        with self._tensor() as empty:
            tensor, geometries = preprocess_batch(images_bgr, self.spec.input, empty)
            outputs = self._outputs(tensor)
        return decode_batch(
            outputs, self.spec, geometries, score_threshold=score_threshold, iou_threshold=iou_threshold
        )

    def close(self) -> None:
        """Free what the runtime holds, once the detections under way are done."""
        self.runtime.close()

    def _outputs(self, tensor: Floats) -> dict[str, Floats]:
        outputs = self.runtime.run({self.spec.input.name: tensor})
        for name, values in outputs.items():
            finite = np.isfinite(values)
            if not finite.all():
                raise VendorError(
                    f"{self.runtime.name} gave outputs that are not finite",
                    got=f"NaN or infinity in {name}: {np.count_nonzero(~finite)} of {finite.size} values",
                    expected="finite numbers for every image",
                    fix="copy the artifact again (`edgedet inspect BUNDLE` tells which are whole); "
                    "`edgedet parity` compares it with the float detector",
                )
        return outputs

    @contextmanager
    def _tensor(self) -> Iterator[Floats]:
        """Memory for one input that no other thread has meanwhile."""
        try:
            tensor = self._tensors.pop()
        except IndexError:
            tensor = np.empty(self.spec.input.tensor.shape, np.float32)
        try:
            yield tensor
        finally:
            self._tensors.append(tensor)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load(
    path: Path | str,
    runtime: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    *,
    batch: int | None = 1,
) -> Pipeline:
    """Open a bundle or a lone artifact.

    Args:
        path: A bundle folder, or one .onnx, .xml, .tflite, .engine, .rtx or .safetensors file with its spec
            inside.
        runtime: One of the names in `edgedet.registry.RUNTIMES`; by default the first one installed.
        precision: One of `edgedet.spec.PRECISIONS`; by default the first that the runtime has, in that order.
        threads: CPU threads of the runtime; by default the vendor's choice.
        batch: Images of one inference; None for as many as a lone artifact takes, and one of a bundle.

    Raises:
        BundleError: The path is neither, or its contents cannot be trusted.
        UsageError: The bundle has no such artifact, or the lone one is another.
        MissingError: The runtime is not installed, or its engine was not built at the export.
    """
    source = Path(path)
    if runtime is not None:
        registry.RUNTIMES.entry(runtime)
    wanted = None if precision is None else check_precision(precision)
    if source.is_dir() or source.name == MANIFEST:
        root = source.parent if source.name == MANIFEST else source
        return _load_bundle(root, runtime, wanted, threads, batch or 1)
    name = runtime if runtime and source.is_file() else runtime_of(source)
    pipeline = Pipeline(registry.RUNTIMES.load(name)(source, threads=threads))
    if wanted is not None and pipeline.spec.precision != wanted:
        pipeline.close()
        raise UsageError(
            f"{source} is not {wanted}",
            got=f"an artifact in {pipeline.spec.precision}",
            expected=wanted,
            fix=f"leave --precision out, or name the {wanted} file",
        )
    own = pipeline.spec.input.batch
    if batch not in (None, own):
        pipeline.close()
        raise UsageError(
            f"{source} takes another number of images at once",
            got=f"an artifact for a batch of {own}",
            expected=f"one for a batch of {batch}",
            fix=f"name the file of that batch, or open it as it is: edgedet.load(FILE, batch={own})",
        )
    return pipeline


def _load_bundle(
    root: Path, runtime: str | None, precision: Precision | None, threads: int | None, batch: int
) -> Pipeline:
    bundle = open_bundle(root)
    artifacts: dict[tuple[str, str], Artifact] = {(a.runtime, a.precision): a for a in bundle.of_batch(batch)}
    runtimes = (runtime,) if runtime else _by_preference()
    precisions = (precision,) if precision else PRECISIONS
    missing: MissingError | None = None
    for name in runtimes:
        for wanted in precisions:
            artifact = artifacts.get((name, wanted))
            if artifact is None:
                continue
            try:
                factory = registry.RUNTIMES.load(name)
                path = bundle.path_of(artifact)
                return Pipeline(factory(path, spec=bundle.spec_of(artifact), threads=threads))
            except MissingError as exc:
                missing = missing or exc
    if missing is not None:
        raise missing
    raise bundle.no_artifact(runtime, precision, batch)


def _by_preference() -> tuple[str, ...]:
    others = (name for name in registry.RUNTIMES if name not in (*_PREFERENCE, FLOAT))
    return (*_PREFERENCE, *others, FLOAT)
