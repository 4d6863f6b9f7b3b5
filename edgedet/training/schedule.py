"""The learning rate over a run."""

from __future__ import annotations

import math


def warmup_cosine(step: int, total: int, warmup: int) -> float:
    """Linear from 0 to 1 over `warmup` steps, then half a cosine to 0 (He et al., Bag of Tricks, CVPR 2019).

    Args:
        step: Counted from 0.
        total: Steps of the run.
        warmup: Steps of the warm-up.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(total - warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
