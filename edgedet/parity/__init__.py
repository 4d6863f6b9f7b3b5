"""The proof that artifacts detect what the float detector detects, stage by stage on real images.

`budgets` say how much may differ, `compare` and `matching` measure, `judge` decides, `report` holds what came
out and `run` streams images through all artifacts at once, here and on devices.
"""

from edgedet.parity.budgets import Budget, Budgets, load_budgets
from edgedet.parity.matching import Matching, match
from edgedet.parity.report import ParityReport, ParityRow
from edgedet.parity.run import Devices, run_parity

__all__ = [
    "Budget",
    "Budgets",
    "Devices",
    "Matching",
    "ParityReport",
    "ParityRow",
    "load_budgets",
    "match",
    "run_parity",
]
