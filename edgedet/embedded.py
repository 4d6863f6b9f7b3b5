"""Where each format keeps the spec of its detector: the exporter writes there, the runtimes read there.

=============  ==========================================================================================
ONNX           `metadata_props["edgedet.spec"]`
OpenVINO IR    `rt_info/edgedet/spec` of the model, beside the sha256 of its .bin
TFLite         the metadata entry named "edgedet.spec" and its buffer
TensorRT and   a file beside the plan, because a plan with anything before or after it is one that `trtexec
TensorRT RTX   --loadEngine` and other tools do not open; it names the plan by its sha256
safetensors    the `__metadata__` of the checkpoint, which `edgedet.models.checkpoint` owns
=============  ==========================================================================================
"""

from __future__ import annotations

import json
from pathlib import Path

from edgedet.errors import BundleError
from edgedet.files import sha256_of

SPEC_KEY = "edgedet.spec"
RT_INFO_PATH = ("edgedet", "spec")
RT_INFO_WEIGHTS = ("edgedet", "weights_sha256")

# Of a checkpoint: the ranges that training learned.
RANGES_KEY = "edgedet.ranges"

_PLAN = "plan_sha256"


def plan_sidecar(engine: Path) -> Path:
    """The file that holds the spec of a TensorRT plan: `model.engine.spec.json` beside `model.engine`."""
    return engine.with_name(engine.name + ".spec.json")


def bound_spec(engine: Path, spec_json: str) -> str:
    """What the sidecar of a plan holds: the spec, and the plan that it is of."""
    return json.dumps({_PLAN: sha256_of(engine), "spec": json.loads(spec_json)})


def read_bound_spec(engine: Path) -> str | None:
    """The JSON of the spec beside a plan; None where there is no such file.

    Raises:
        BundleError: The file is not a sidecar, or is that of another plan.
    """
    sidecar = plan_sidecar(engine)
    if not sidecar.is_file():
        return None
    try:
        held = json.loads(sidecar.read_text("utf-8"))
        plan, spec = held[_PLAN], held["spec"]
    except (ValueError, KeyError, TypeError) as exc:
        raise _unbound(engine, "a file that does not read as one", exc) from exc
    if plan != sha256_of(engine):
        raise _unbound(engine, f"the spec of the plan {str(plan)[:12]}…")
    return json.dumps(spec)


def _unbound(engine: Path, got: str, exc: Exception | None = None) -> BundleError:
    reason = f": {type(exc).__name__}" if exc else ""
    return BundleError(
        f"{plan_sidecar(engine)} is not the spec of {engine.name}",
        got=got + reason,
        expected=f"a spec that names the sha256 of {engine.name}",
        fix="copy the two files together again, or export again",
    )
