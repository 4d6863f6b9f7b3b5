"""ONNX for ONNX Runtime, and the graph that OpenVINO and TensorRT start from."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar
from weakref import WeakKeyDictionary

import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

from edgedet.spec import Precision
from edgedet_export.metadata import embed_onnx
from edgedet_export.passes.drop_clips import drop_clips
from edgedet_export.passes.pool_means import pool_means
from edgedet_export.passes.quantize_biases import quantize_biases
from edgedet_export.quiet import converter
from edgedet_export.target import Exported, Source

# The newest operator set that the ONNX parsers of TensorRT 10, OpenVINO 2025 and ONNX Runtime 1.20 all read.
OPSET = 20


# A conversion takes seconds and lives as long as its source.
_CONVERTED: WeakKeyDictionary[Source, ir.Model] = WeakKeyDictionary()


class OnnxTarget:
    """ONNX with Q/DQ pairs where it is INT8: uint8 activations, int8 weights, int32 biases."""

    runtime: ClassVar[str] = "ort"
    encoding: ClassVar[str] = "onnxruntime"
    fold_weights: ClassVar[bool] = True
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "int8")

    def export(self, source: Source, folder: Path) -> Exported:
        """Write `model.onnx`."""
        path = folder / "model.onnx"
        ir.save(to_onnx(source), path)
        embed_onnx(path, source.spec)
        return Exported((path,))


def to_onnx(source: Source) -> ir.Model:
    """A source as an ONNX model with the spec's names and nothing of the machine that exported it.

    Biases are int32 unless the encoding is symmetric: TensorRT reads float biases only. The targets that
    start from ONNX share one conversion of a source; they save the model and do not change it.

    Raises:
        VendorError: The exporter does not know an operator.
    """
    if source not in _CONVERTED:
        _CONVERTED[source] = _convert(source)
    return _CONVERTED[source]


def _convert(source: Source) -> ir.Model:
    with converter("torch.onnx"):
        program = torch.onnx.export(
            torch.export.export(source.graph_module, source.example_inputs),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[source.spec.input.name],
            output_names=[output.name for output in source.spec.outputs],
        )
    assert program is not None
    model = program.model
    _strip_traces(model)
    quantization = source.spec.quantization
    if quantization is not None:
        drop_clips(model)
        pool_means(model)
        if quantization.encoding != "tensorrt":
            quantize_biases(model)
    RemoveUnusedNodesPass()(model)
    RemoveUnusedOpsetsPass()(model)
    model.producer_name, model.producer_version = "edgedet", None
    return model


def _strip_traces(model: ir.Model) -> None:
    """The exporter notes Python stack traces, with paths, in every node."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.graph.doc_string = model.doc_string = None
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in (*node.inputs, *node.outputs):
            if value is not None:
                value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
