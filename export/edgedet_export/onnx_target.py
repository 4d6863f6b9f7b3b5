"""ONNX for ONNX Runtime, and the graph that OpenVINO and TensorRT start from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar
from weakref import WeakKeyDictionary

import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass, RemoveUnusedOpsetsPass
from torch.fx import GraphModule

from edgedet.spec import Precision
from edgedet_export.half import Halved
from edgedet_export.metadata import embed_onnx
from edgedet_export.passes.drop_clips import drop_clips
from edgedet_export.passes.pool_means import pool_means
from edgedet_export.passes.quantize_biases import quantize_biases
from edgedet_export.quiet import converter
from edgedet_export.target import Exported, Source

# The newest operator set that the ONNX parsers of TensorRT 10, OpenVINO 2025 and ONNX Runtime 1.20 all read.
OPSET = 20


# A conversion takes seconds and lives as long as its graph, which may have one in float32 and one in float16.
_CONVERTED: WeakKeyDictionary[GraphModule, dict[torch.dtype, ir.Model]] = WeakKeyDictionary()


class OnnxTarget:
    """ONNX with Q/DQ pairs where it is INT8: uint8 activations, int8 weights, int32 biases.

    In fp16 everything between float32 inputs and outputs is float16. No int8-a16: ONNX has 16-bit Q/DQ pairs
    from operator set 21 on, but ONNX Runtime computes the convolutions between them in float.
    """

    runtime: ClassVar[str] = "ort"
    encodings: ClassVar[Mapping[Precision, str]] = {"int8": "onnxruntime"}
    fold_weights: ClassVar[bool] = True
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "int8")

    def export(self, source: Source, folder: Path) -> Exported:
        """Write `model.onnx`."""
        path = folder / "model.onnx"
        ir.save(to_onnx(source, dtype_of(source)), path)
        embed_onnx(path, source.spec)
        return Exported((path,))


def dtype_of(source: Source) -> torch.dtype:
    """What a source's precision asks of a format in which the graph says what is computed."""
    return torch.float16 if source.spec.precision == "fp16" else torch.float32


def to_onnx(source: Source, dtype: torch.dtype = torch.float32) -> ir.Model:
    """A source as an ONNX model with the spec's names and nothing of the machine that exported it.

    Biases are int32 unless they are for TensorRT, which reads float biases only. The targets that start from
    ONNX share one conversion of a graph; they save the model and do not change it.

    Args:
        source: The source.
        dtype: What floats are between float32 inputs and outputs: float32, or float16 for a float source.

    Raises:
        VendorError: The exporter does not know an operator.
    """
    converted = _CONVERTED.setdefault(source.graph_module, {})
    if dtype not in converted:
        converted[dtype] = _convert(source, dtype)
    return converted[dtype]


def _convert(source: Source, dtype: torch.dtype) -> ir.Model:
    module = Halved(source.graph_module) if dtype == torch.float16 else source.graph_module
    with converter("torch.onnx"):
        program = torch.onnx.export(
            torch.export.export(module, source.example_inputs),
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
