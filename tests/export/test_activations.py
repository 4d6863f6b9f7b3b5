"""Squeeze-excite and hard-swish run in integers on every runtime: read from what the runtimes execute."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from edgedet import registry
from edgedet.bundle import Bundle, open_bundle
from edgedet.data import open_dataset
from edgedet.data.synthetic import LABELS
from edgedet.executed import ExecutedGraph
from edgedet.models import build_detector, save_checkpoint
from edgedet.models.config import BackboneConfig, DetectorConfig, SsdLiteConfig
from edgedet.spec import InputSpec
from edgedet_calibration.recipe import Recipe
from edgedet_export import verify
from edgedet_export.exporter import ExportRequest, export_bundle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """MobileNetV3-Small with fresh weights, whose noise says nothing: what counts here is the graph."""
    folder = tmp_path_factory.mktemp("mobilenetv3")
    torch.manual_seed(0)
    config = DetectorConfig(
        name="small",
        labels=LABELS,
        input=InputSpec(size_hw=(96, 96)),
        backbone=BackboneConfig(name="mobilenetv3_small_050"),
        head=SsdLiteConfig(extra_channels=(32, 32), scales=(0.2, 0.4, 0.6, 0.8, 1.0)),
    )
    save_checkpoint(folder / "small.safetensors", build_detector(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "MIN_SNR_DB", {})
        export_bundle(
            ExportRequest(
                folder / "small.safetensors",
                folder / "bundle",
                ("onnx", "openvino", "tflite"),
                ("int8",),
                open_dataset("builtin", split="val"),
                Recipe(images=4),
            )
        )
    return open_bundle(folder / "bundle")


def executed(exported: Bundle, runtime: str) -> ExecutedGraph:
    path = exported.path_of(exported.artifact(runtime, "int8"))
    with registry.RUNTIMES.load(runtime)(path, threads=1) as opened:
        graph: ExecutedGraph = opened.executed(runs=1)
    return graph


def test_onnx_runtime_runs_nothing_in_float(exported: Bundle) -> None:
    graph = executed(exported, "ort")
    types = Counter(operator.type for operator in graph.operators)
    assert types["QLinearGlobalAveragePool"] == 9
    assert types["QLinearAdd"] >= 18 <= types["QLinearMul"]
    assert graph.float_chains == ()


def test_tflite_runs_nothing_in_float(exported: Bundle) -> None:
    graph = executed(exported, "tflite")
    assert graph.float_chains == ()
    # The input's quantization and the dequantization of both outputs.
    converting = Counter(operator.type for operator in graph.operators if operator.role == "convert")
    assert converting == {"QUANTIZE": 1, "DEQUANTIZE": 2}


def test_openvino_computes_hard_swish_inside_integer_convolutions(exported: Bundle) -> None:
    graph = executed(exported, "openvino")
    convolutions = [operator for operator in graph.operators if operator.type == "Convolution"]
    assert convolutions
    assert all(operator.is_integer for operator in convolutions)
    assert not [operator.name for operator in graph.operators if "hardswish" in operator.name.lower()]
