"""Targets by name, for one GPU where that is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from edgedet import registry
from edgedet.errors import UsageError
from edgedet_export.target import PerGpu, Target


def load_targets(names: Sequence[str], compute_capability: str | None = None) -> dict[str, Target]:
    """Targets by name, each once.

    Raises:
        UsageError: A name does not exist, or none of the targets is built for a compute capability.
        MissingExtraError: A package that a target imports is not installed.
    """
    targets: dict[str, Target] = {name: registry.TARGETS.load(name)() for name in dict.fromkeys(names)}
    if compute_capability is None:
        return targets
    able = {name: target for name, target in targets.items() if isinstance(target, PerGpu)}
    if not able:
        raise UsageError(
            "these targets are not built for a compute capability",
            got=f"{compute_capability} with {', '.join(targets) or 'no target'}",
            expected="tensorrt-rtx among the targets",
            fix="--to tensorrt-rtx, or leave the compute capability out",
        )
    return targets | {
        name: target.for_compute_capability(compute_capability) for name, target in able.items()
    }
