"""How fast a detector's artifacts are on this machine, from image to detections.

`stopwatch` times the three stages of one pipeline, `worker` does so in a process of its own and `workers`
talks to it, `run` lets the workers take turns, `report` holds what came out.
"""

from edgedet.bench.report import BenchmarkReport, BenchmarkRow, Percentiles
from edgedet.bench.run import run_benchmark

__all__ = ["BenchmarkReport", "BenchmarkRow", "Percentiles", "run_benchmark"]
