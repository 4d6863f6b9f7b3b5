"""Whether an INT8 artifact ran in integers where it was meant to: a silent fallback is a failure."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Sequence
from typing import Literal

from edgedet.executed import ExecutedGraph, FloatChain
from edgedet.spec import Precision, Value

# Part of an artifact's time that may go to operators in float that nobody asked for, their conversions
# included. Were they to take no time at all, a frame would be faster by no more than this part. The vendors'
# gaps that are known stay below it: the gates of squeeze-and-excite of MobileNetV3-Small in OpenVINO take 3
# to 6 % of its time.
ALLOWED_FLOAT_TIME = 0.10

# Where a runtime tells no times, an operator in float may cost anything: none is allowed.
ALLOWED_FLOAT_OPERATORS_WITHOUT_TIMES = 0.0

# Part of the operators that compute which a delegate may leave to the runtime's own kernels.
ALLOWED_OUTSIDE_DELEGATE = 0.10

# What a layer that was asked to stay float may bring: itself, the product that keeps it float, and its
# activation in two steps.
_OPERATORS_OF_A_LAYER = 4

# A runtime whose operators bear no layer's name, so that what was asked for is known by its number only.
_NAMELESS = frozenset({"tflite"})

# Part of the operators that compute which patterns excuse there: how many layers they stand for is not known.
_ASKED_BY_PATTERNS = 0.25

# Precisions that their runtime is known to run outside its delegate.
_WITHOUT_DELEGATE: frozenset[Precision] = frozenset({"int8-a16"})

Verdict = Literal["intended", "fallback", "unknown"]


class Coverage(Value):
    """What of an artifact ran in integers, and whether that is what it was made for.

    Attributes:
        verdict: "fallback" where more ran in float than may without having been asked for, or not where it
            was meant to; "unknown" where the runtime tells nothing, or could not be asked.
        reason: A sentence for "fallback" and "unknown", else empty.
        integer_share: Part of the operators that compute which did so on integers, 0..1.
        float_time: Part of the time that went to floats that were not asked for, with their conversions,
            0..1; None where the runtime tells no times.
        asked_float_time: The same of layers that the recipe keeps float.
        delegated_share: Part of the operators that compute which a delegate took; None where there is none.
        allowed_float_time: What `float_time` may be.
    """

    verdict: Verdict
    reason: str = ""
    integer_share: float | None = None
    float_time: float | None = None
    asked_float_time: float | None = None
    delegated_share: float | None = None
    allowed_float_time: float = ALLOWED_FLOAT_TIME


def judge(
    graph: ExecutedGraph | None, precision: Precision, float_layers: Sequence[str], unread: str = ""
) -> Coverage:
    """Whether an artifact ran as it was meant to.

    Args:
        graph: What its runtime executed; None where that is not known.
        precision: One that is meant to run on integers.
        float_layers: Shell patterns of layers that its recipe keeps float.
        unread: Why the graph could not be read, where the runtime tells it else.
    """
    if graph is None:
        why = f"the executed graph could not be read: {unread}" if unread else ""
        return Coverage(verdict="unknown", reason=why or "the runtime does not tell what it executed")
    asked, unasked = _split(graph, float_layers)
    delegated = _delegated_share(graph)
    float_time, asked_time = _time(graph, unasked), _time(graph, asked)
    reasons = [
        _not_integers(graph, unasked, float_time),
        "" if precision in _WITHOUT_DELEGATE else _not_delegated(delegated),
    ]
    reason = "; ".join(filter(None, reasons))
    return Coverage(
        verdict="fallback" if reason else "intended",
        reason=reason,
        integer_share=graph.integer_share,
        float_time=float_time,
        asked_float_time=asked_time,
        delegated_share=delegated,
    )


def _split(graph: ExecutedGraph, float_layers: Sequence[str]) -> tuple[list[FloatChain], list[FloatChain]]:
    """Chains in float that hold a layer that was asked for, and the others."""
    chains = list(graph.float_chains)
    if not float_layers:
        return [], chains
    if graph.runtime in _NAMELESS:
        asked = _as_many_as_asked_for(graph, float_layers)
    else:
        asked = [chain for chain in chains if _was_asked_for(chain, float_layers)]
    return asked, [chain for chain in chains if chain not in asked]


def _as_many_as_asked_for(graph: ExecutedGraph, float_layers: Sequence[str]) -> list[FloatChain]:
    """Chains that so many layers may be, the shortest first: neighbours that stay float are one chain."""
    left, operators_each = float(len(float_layers)), _OPERATORS_OF_A_LAYER
    if any(map(_is_pattern, float_layers)):
        computing = sum(operator.role == "compute" for operator in graph.operators)
        left, operators_each = max(left * operators_each, _ASKED_BY_PATTERNS * computing), 1
    asked = []
    for chain in sorted(graph.float_chains, key=lambda chain: len(chain.operators)):
        left -= math.ceil(len(chain.operators) / operators_each)
        if left < 0:
            break
        asked.append(chain)
    return asked


def _was_asked_for(chain: FloatChain, float_layers: Sequence[str]) -> bool:
    named = sum(any(_bears(name, layer) for layer in float_layers) for name in chain.operators)
    return named > 0 and len(chain.operators) <= named * _OPERATORS_OF_A_LAYER


def _bears(operator: str, layer: str) -> bool:
    """Whether a runtime's name of an operator has the name of a layer in it: node_conv2d_4/WithoutBiases."""
    pattern = fnmatch.translate(layer).removeprefix("(?s:").removesuffix(r")\Z").removesuffix(r")\z")
    return re.search(rf"(?<![A-Za-z0-9])(?:{pattern})(?![A-Za-z0-9]|_\d)", operator) is not None


def _is_pattern(layer: str) -> bool:
    return any(letter in layer for letter in "*?[")


def _not_integers(graph: ExecutedGraph, chains: Sequence[FloatChain], float_time: float | None) -> str:
    if not chains:
        return ""
    floats = sum(len(chain.operators) for chain in chains)
    computing = sum(operator.role == "compute" for operator in graph.operators)
    shown = ", ".join(chain.operators[0] for chain in chains[:3]) + (", …" if len(chains) > 3 else "")
    what = f"{floats} of {computing} operators that compute ran in float without being asked to ({shown})"
    if float_time is not None:
        over = float_time > ALLOWED_FLOAT_TIME
        return (
            f"{what}, {100 * float_time:.1f} % of the time; {100 * ALLOWED_FLOAT_TIME:.0f} % may"
            if over
            else ""
        )
    over = floats > ALLOWED_FLOAT_OPERATORS_WITHOUT_TIMES * computing
    return f"{what}; this runtime tells no times, so none may" if over else ""


def _delegated_share(graph: ExecutedGraph) -> float | None:
    told = [o.delegated for o in graph.operators if o.role == "compute" and o.delegated is not None]
    return sum(told) / len(told) if told else None


def _not_delegated(share: float | None) -> str:
    if share is None or share >= 1 - ALLOWED_OUTSIDE_DELEGATE:
        return ""
    return (
        f"the delegate took {100 * share:.0f} % of the operators that compute, and the rest ran in slower "
        f"kernels; {100 * (1 - ALLOWED_OUTSIDE_DELEGATE):.0f} % are expected"
    )


def _time(graph: ExecutedGraph, chains: Sequence[FloatChain]) -> float | None:
    if not any(operator.time_share is not None for operator in graph.operators):
        return None
    # A conversion between two chains belongs to both.
    return min(1.0, sum(chain.time_share or 0.0 for chain in chains))
