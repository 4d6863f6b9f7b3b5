"""Names that other people's code may rely on.

Changing a line here is a visible change and needs a CHANGELOG entry.
"""

from __future__ import annotations

import importlib

import pytest
from source_tree import modules

SURFACE = {
    "edgedet": [
        "Bundle",
        "Detection",
        "Detections",
        "DetectorSpec",
        "EdgedetError",
        "Pipeline",
        "load",
        "open_bundle",
    ],
    "edgedet.bench": ["BenchmarkReport", "BenchmarkRow", "Percentiles", "run_benchmark"],
    "edgedet.data": ["Dataset", "LabelledImage", "Summary", "SummaryRecord", "open_dataset", "read_image"],
    "edgedet.decode": ["Candidates", "decode", "decode_batch", "find_candidates", "suppress"],
    "edgedet.devices": ["Address", "LOCAL", "RemoteDevice", "parse_address"],
    "edgedet.evaluate": [
        "AccuracyReport",
        "ClassAccuracy",
        "EVALUATION_SCORE_THRESHOLD",
        "Evaluator",
        "MAX_DETECTIONS",
        "evaluate",
        "evaluation_spec",
        "shared_classes",
        "with_detector_classes",
    ],
    "edgedet.models": ["Detector", "build_detector", "load_checkpoint", "save_checkpoint"],
    "edgedet.parity": [
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
    ],
    "edgedet.recommend": [
        "Advice",
        "Candidate",
        "Figures",
        "Recommendation",
        "RecommendationReport",
        "recommend",
        "run_recommendation",
    ],
    "edgedet.report": [
        "Picture",
        "Plot",
        "comparison_pictures",
        "draw_comparison",
        "draw_detections",
        "markdown_of",
        "pareto_plot",
        "sensitivity_plot",
        "write_recommendation",
        "write_report",
    ],
}


@pytest.mark.parametrize("package", SURFACE)
def test_the_public_names_are_these_and_exist(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == SURFACE[package]
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_no_package_publishes_names_that_are_not_listed_here() -> None:
    packages = {name for name, path in modules().items() if path.name == "__init__.py"}
    publishing = {name for name in packages if "__all__" in modules()[name].read_text("utf-8")}
    assert publishing == set(SURFACE)
