"""How fast a detector's artifacts are on this machine, from image to detections.

`contenders` says what is measured. `stopwatch` times the three stages of one pipeline, `worker` does so in a
process of its own and `workers` talks to it, `turns` says who is measured when, `cold` and `cold_start` time
fresh processes, `condition` reads clock, heat and energy of the machine. `rows` makes turns into figures,
`ratio` compares two artifacts, `coverage` judges what ran in integers and `cautions` warns; `run` joins all
of it and `report` holds what came out. `history` keeps it, `trend` shows what changed.
"""

from edgedet.bench.report import BenchmarkReport, BenchmarkRow, Percentiles
from edgedet.bench.run import run_benchmark

__all__ = ["BenchmarkReport", "BenchmarkRow", "Percentiles", "run_benchmark"]
