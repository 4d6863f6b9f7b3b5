"""The proof that artifacts detect what the float detector detects, stage by stage on real images.

`budgets` say how much may differ, `compare` and `matching` measure, `judge` decides, `classes` and `images`
look at one class and one image by itself, `report` holds what came out and `run` streams images through all
artifacts at once, here and on devices. `regression` holds a report against that of an earlier run.
"""

from edgedet.parity.baseline import BaselineComparison
from edgedet.parity.budgets import Budget, Budgets, load_budgets
from edgedet.parity.matching import Matching, match
from edgedet.parity.regression import compare_with_baseline
from edgedet.parity.report import ParityReport, ParityRow
from edgedet.parity.run import Devices, run_parity

__all__ = [
    "BaselineComparison",
    "Budget",
    "Budgets",
    "Devices",
    "Matching",
    "ParityReport",
    "ParityRow",
    "compare_with_baseline",
    "load_budgets",
    "match",
    "run_parity",
]
