"""Sums that overflow as the cause of an INT8 artifact's noise: said where the processor saturates."""

from __future__ import annotations

import platform
import re
from importlib import import_module
from pathlib import Path

from edgedet.bundle import Artifact, Bundle
from edgedet.errors import MissingError
from edgedet.proof import prove_artifact

_CPUINFO = Path("/proc/cpuinfo")


def processor_saturates() -> bool:
    """Whether this process runs on an x86 processor without VNNI."""
    if platform.machine().lower() not in {"amd64", "x86_64"}:
        return False
    features = import_module("numpy._core._multiarray_umath").__cpu_features__
    # In a process that qemu emulates, /proc/cpuinfo is of the machine around it.
    text = _CPUINFO.read_text(errors="replace") if _CPUINFO.exists() and features.get("AVX512F") else ""
    return not re.search(r"\b(?:avx512_vnni|avx_vnni)\b", text)


def overflow_reason(bundle: Bundle, artifact: Artifact) -> str:
    """What a reader should know of an artifact on a processor that saturates; "" where no sum can overflow.

    Args:
        bundle: Here, with files that were found whole.
        artifact: One of its artifacts.
    """
    try:
        proof = prove_artifact(bundle, artifact)
    except MissingError:  # it runs on a device, and what reads it is not installed here
        return ""
    if proof is None or not proof.overflows:
        return ""
    how = artifact.quantization
    is_learned = how is not None and how.observer == "learned"
    return (
        f"sums of this artifact saturate on this processor, which has no VNNI: {len(proof.overflows)} of "
        f"{proof.layers} layers can overflow ({proof.overflowing}). "
        f"{'Train it in 8 bits and export it' if is_learned else 'Export'} again with a recipe that is "
        "pair-safe, as the default is; `edgedet inspect` names the layers"
    )
