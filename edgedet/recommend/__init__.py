"""Whether quantizing pays: latency, mAP and size of every artifact of a bundle, and which one to ship.

`decide` is the decision as a pure function of figures, `run` measures them.
"""

from edgedet.recommend.decide import Advice, Candidate, Figures, Recommendation, recommend
from edgedet.recommend.run import RecommendationReport, run_recommendation

__all__ = [
    "Advice",
    "Candidate",
    "Figures",
    "Recommendation",
    "RecommendationReport",
    "recommend",
    "run_recommendation",
]
