"""Integer tensors between the operators of an artifact, as its runtime computed them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedet.boxes import Floats

# In the names of quantizations that are there for a runtime to read and not to execute.
RESIDUAL_MARK = "_residual_mark"


@dataclass(frozen=True, slots=True, eq=False)
class Intermediate:
    """One tensor of one inference.

    Attributes:
        integers: `[n, c, h, w]` for feature maps, whatever the order of axes in the file.
        scale: One step.
        zero_point: The integer of 0.
    """

    integers: NDArray[np.integer[Any]]
    scale: float
    zero_point: int

    def values(self) -> Floats:
        """What the integers stand for, float32."""
        return (self.integers.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class Intermediates:
    """What one inference computed.

    Attributes:
        tensors: The integer tensors, in the order of the file.
        outputs: The raw outputs of that inference, by name.
    """

    tensors: tuple[Intermediate, ...] = ()
    outputs: Mapping[str, Floats] = field(default_factory=dict)
