"""Where each format keeps the spec of its detector: the exporter writes there, the runtimes read there.

=============  ==========================================================================================
ONNX           `metadata_props["edgedet.spec"]`
OpenVINO IR    `rt_info/edgedet/spec` of the model
TFLite         the metadata entry named "edgedet.spec" and its buffer
TensorRT       a file beside the plan, because a plan with anything before or after it is one that `trtexec
               --loadEngine` and other tools do not open
safetensors    the `__metadata__` of the checkpoint, which `edgedet.models.checkpoint` owns
=============  ==========================================================================================
"""

from __future__ import annotations

from pathlib import Path

SPEC_KEY = "edgedet.spec"
RT_INFO_PATH = ("edgedet", "spec")


def plan_sidecar(engine: Path) -> Path:
    """The file that holds the spec of a TensorRT plan: `model.engine.spec.json` beside `model.engine`."""
    return engine.with_name(engine.name + ".spec.json")
