"""What the runtimes themselves say that they execute."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgedet import registry
from edgedet.bench import coverage, run_benchmark
from edgedet.bundle import MANIFEST, Bundle
from edgedet.cli import main
from edgedet.errors import UsageError
from edgedet.executed import ExecutedGraph
from edgedet.pipeline import load
from edgedet.spec import QuantizationSpec


def executed(bundle: Bundle, runtime: str, precision: str = "int8") -> ExecutedGraph:
    pytest.importorskip({"ort": "onnxruntime", "tflite": "ai_edge_litert"}.get(runtime, runtime))
    artifact = bundle.artifact(runtime, precision)
    with registry.RUNTIMES.load(runtime)(bundle.path_of(artifact), threads=1) as opened:
        graph = opened.executed(runs=2)
    assert graph is not None
    return graph


@pytest.mark.parametrize("runtime", ["ort", "openvino"])
def test_a_network_in_integers_has_no_float_chain(quantized: Any, runtime: str) -> None:
    graph = executed(quantized(False), runtime)
    computing = [operator for operator in graph.operators if operator.role == "compute"]
    assert len(computing) == 5
    assert graph.float_chains == ()
    assert graph.integer_share == 1
    assert sum(operator.time_share for operator in graph.operators) == pytest.approx(1)


@pytest.mark.parametrize("runtime", ["ort", "openvino"])
def test_convolutions_in_float_in_the_middle_are_one_island_that_names_them(
    quantized: Any, runtime: str
) -> None:
    graph = executed(quantized(True), runtime)
    (island,) = graph.islands
    assert graph.float_chains == (island,)
    assert island.conversions >= 1
    assert 0 < island.time_share < 1
    assert len(island.operators) == 2
    assert "second" in island.operators[1]
    assert graph.integer_share == pytest.approx(3 / 5)


def test_inspect_prints_the_operators_and_warns_of_the_island(
    quantized: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    target, root = tmp_path / "executed.json", quantized(True).root
    assert main(["inspect", str(root), "--executed", "--runtimes", "ort", "--json", str(target)]) == 0
    printed = capsys.readouterr().out
    (artifact,) = json.loads(target.read_text())["artifacts"]
    (warning,) = artifact["warnings"]
    assert f"warning: {warning}" in printed
    assert "ort int8: " in printed
    assert "60.0 % of what computes is in integers" in printed
    assert {kind["type"] for kind in artifact["kinds"]} >= {"QLinearConv", "Conv", "QuantizeLinear"}
    assert artifact["integer_share"] == 0.6


def test_inspect_reads_a_lone_file_and_warns_of_nothing_where_all_is_in_integers(
    quantized: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = quantized(False).root / "int8" / "model.onnx"
    assert main(["inspect", str(path), "--executed"]) == 0
    printed = capsys.readouterr().out
    assert "100.0 % of what computes is in integers" in printed
    assert "warning" not in printed


def test_inspect_refuses_a_runtime_without_executed(
    quantized: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(quantized(False).root), "--runtimes", "ort"]) == 2
    assert "expected --executed or --quantization" in capsys.readouterr().err


def test_a_benchmark_warns_of_int8_that_fell_back_to_float(quantized: Any) -> None:
    report = run_benchmark(quantized(True).root, ["ort"], duration_s=0.1)
    assert report.rows[0].integer_share == 0.6
    first, warning = [warning for warning in report.warnings if "ran in float" in warning]
    assert first.startswith("ort int8 fell back: 2 of 5 operators")
    assert warning.startswith("ort int8: 2 of 5 operators that compute ran in float in 1 island")
    whole = run_benchmark(quantized(False).root, ["ort"], duration_s=0.1)
    assert whole.rows[0].integer_share == 1
    assert not [warning for warning in whole.warnings if "ran in float" in warning]


def test_int8_that_runs_in_float_ends_a_benchmark_with_1_unless_that_is_allowed(
    quantized: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a network of five operators, shares of time are near the limit where other programs run.
    monkeypatch.setattr(coverage, "ALLOWED_FLOAT_TIME", 0.01)
    arguments = ["benchmark", str(quantized(True).root), "--runtimes", "ort", "--duration", "0.1"]
    target = tmp_path / "benchmark.json"
    assert main([*arguments, "--json", str(target)]) == 1
    said = capsys.readouterr()
    assert "ort int8 did not run as meant" in said.err
    assert (
        "note: ort int8 fell back: 2 of 5 operators that compute ran in float without being asked" in said.out
    )
    (row,) = json.loads(target.read_text())["rows"]
    assert row["coverage"]["verdict"] == "fallback"
    assert row["coverage"]["float_time"] > 0.01
    assert main([*arguments, "--allow-fallback"]) == 0
    assert "ort int8 fell back" in capsys.readouterr().out
    whole = ["benchmark", str(quantized(False).root), *arguments[2:]]
    assert main(whole) == 0


def test_int8_whose_float_layers_were_asked_for_did_not_fall_back(quantized: Any, tmp_path: Path) -> None:
    bundle = quantized(True)
    how = QuantizationSpec(
        encoding="onnxruntime",
        observer="minmax",
        float_layers=("first", "second"),
        calibration_sha256="0" * 64,
    )
    root = tmp_path / "bundle"
    shutil.copytree(bundle.root, root)
    artifacts = tuple(a.model_copy(update={"quantization": how}) for a in bundle.manifest.artifacts)
    manifest = bundle.manifest.model_copy(update={"artifacts": artifacts})
    (root / MANIFEST).write_text(manifest.model_dump_json())
    for row in run_benchmark(root, duration_s=0.1).rows:
        assert row.coverage.verdict == "intended", row.coverage
        assert row.coverage.asked_float_time > 0


def test_pytorch_tells_nothing_and_a_closed_runtime_says_so(checkpoint: Path) -> None:
    with load(checkpoint) as pipeline:
        opened: Any = pipeline.runtime
        assert opened.executed() is None
    with pytest.raises(UsageError, match="closed"):
        opened.executed()
