"""What one runtime makes of one image, from raw outputs to detections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from edgedet import registry
from edgedet.boxes import Floats
from edgedet.bundle import Artifact, Bundle
from edgedet.decode import Candidates, find_candidates, suppress
from edgedet.detections import Detections
from edgedet.errors import BundleError
from edgedet.evaluate import EVALUATION_SCORE_THRESHOLD, MAX_DETECTIONS
from edgedet.parity.budgets import MOST_TOLERANCE
from edgedet.pipeline import RuntimeLike
from edgedet.preprocess import Geometry
from edgedet.spec import DetectorSpec

_CANDIDATES = ("boxes_xyxy", "scores", "class_ids", "rows")
_DETECTIONS = ("boxes_xyxy", "scores", "class_ids")


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What one runtime made of one image; candidates and detections reach far down and are cut later.

    Attributes:
        outputs: Raw outputs by name.
        candidates: Boxes before suppression.
        detections: Those after it.
    """

    outputs: Mapping[str, Floats]
    candidates: Candidates
    detections: Detections

    @staticmethod
    def of(
        runtime: RuntimeLike,
        tensor: Floats,
        spec: DetectorSpec,
        geometry: Geometry,
        *,
        for_map: bool = True,
    ) -> View:
        """Run and decode as `spec` says, down to the score that is needed: for mAP, or to compare."""
        outputs = runtime.run({spec.input.name: tensor})
        floor = min(EVALUATION_SCORE_THRESHOLD, spec.score_threshold)
        if not for_map:
            floor = max(floor, spec.score_threshold - MOST_TOLERANCE)
        candidates = find_candidates(outputs, spec, geometry, floor)
        limit = max(spec.max_detections, MAX_DETECTIONS)
        return View(outputs, candidates, suppress(candidates, spec, limit=limit))

    def to_arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """As arrays whose names begin with `prefix`."""
        return {
            **{f"{prefix}outputs/{name}": array for name, array in self.outputs.items()},
            **{f"{prefix}candidates/{name}": getattr(self.candidates, name) for name in _CANDIDATES},
            **{f"{prefix}detections/{name}": getattr(self.detections, name) for name in _DETECTIONS},
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]], prefix: str) -> View:
        """What `to_arrays` was called on.

        Raises:
            KeyError: An array is missing.
        """
        outputs = f"{prefix}outputs/"
        boxes, scores, class_ids = (arrays[f"{prefix}detections/{name}"] for name in _DETECTIONS)
        return View(
            {name.removeprefix(outputs): a for name, a in arrays.items() if name.startswith(outputs)},
            Candidates(*(arrays[f"{prefix}candidates/{name}"] for name in _CANDIDATES)),
            Detections(boxes, scores, class_ids),
        )


def open_alone(bundle: Bundle, artifact: Artifact) -> RuntimeLike:
    """Open without a spec: the runtime reads the one in its file, so that a lone copy is what is judged.

    Raises:
        BundleError: A file is not what was exported, or takes another number of images at once.
        MissingError: The runtime is not installed.
    """
    path = bundle.path_of(artifact)
    runtime: RuntimeLike = registry.RUNTIMES.load(artifact.runtime)(path)
    found = runtime.spec.input.batch
    if found != artifact.batch:
        runtime.close()
        raise BundleError(
            f"{path} cannot be compared",
            got=f"an artifact for a batch of {found}",
            expected=f"a batch of {artifact.batch}, as bundle.json says",
            fix="export again",
        )
    return runtime
