"""Squeeze-excite and hard-swish run in integers on every runtime: read from what the runtimes execute."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch

from edgedet.bundle import Bundle, open_bundle
from edgedet.data import open_dataset
from edgedet.data.synthetic import LABELS
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
        patch.setattr(verify, "INT8_MIN_SNR_DB", -100.0)
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


def test_onnx_runtime_runs_nothing_in_float(exported: Bundle, tmp_path: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    path = exported.path_of(exported.artifact("ort", "int8"))
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    executed = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert executed["QLinearGlobalAveragePool"] == 9
    assert executed["QLinearAdd"] >= 18 <= executed["QLinearMul"]
    floats = {
        "Add",
        "Clip",
        "Conv",
        "FusedConv",
        "GlobalAveragePool",
        "HardSigmoid",
        "HardSwish",
        "Mul",
        "ReduceMean",
    }
    assert floats.isdisjoint(executed)


def test_tflite_runs_nothing_in_float(exported: Bundle) -> None:
    from ai_edge_litert import schema_py_generated as schema

    path = exported.path_of(exported.artifact("tflite", "int8"))
    (graph,) = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0)).subgraphs
    types = [{graph.tensors[i].type for i in (*o.inputs[:1], *o.outputs)} for o in graph.operators]
    mixed = [kinds for kinds in types if schema.TensorType.FLOAT32 in kinds]
    # The input's quantization and the dequantization of both outputs.
    assert mixed == [{schema.TensorType.FLOAT32, schema.TensorType.INT8}] * 3


def test_openvino_computes_hard_swish_inside_integer_convolutions(exported: Bundle) -> None:
    import openvino

    path = exported.path_of(exported.artifact("openvino", "int8"))
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kinds = Counter(str(info["layerType"]) for info in nodes)
    precisions = Counter(
        str(info["runtimePrecision"]) for info in nodes if str(info["layerType"]) == "Convolution"
    )
    assert set(precisions) <= {"i8", "u8"}, precisions
    assert kinds["HSwish"] == 0, kinds
