"""Sums that overflow as the cause of an INT8 artifact's noise: said where the processor saturates."""

from __future__ import annotations

from edgedet.bundle import Artifact, Bundle
from edgedet.errors import MissingError
from edgedet.processor import Processor, read_processor
from edgedet.proof import prove_artifact


def saturates(processor: Processor | None = None) -> bool:
    """Whether a processor adds INT8 products in 16 bits, by default this one; not where that is unknown."""
    return bool((processor or read_processor()).saturates)


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
