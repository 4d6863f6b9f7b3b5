"""A TFLite model that copies its input to two outputs, written through the schema itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

PLANES = (1, 3, 4, 4)
CHANNELS_LAST = (1, 4, 4, 3)
OUTPUT_SHAPE = [1, 12, 4]

_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
}


def passing_model(
    dtype: str,
    *,
    shape: Sequence[int] = PLANES,
    scale: float = 0.0,
    zero_point: int = 0,
    metadata: dict[str, bytes] | None = None,
) -> bytes:
    """Bytes of the model; input and outputs are quantized where a scale is given."""

    def tensor(name: str, shape: Sequence[int]) -> Any:
        quantization = schema.QuantizationParametersT()
        if scale:
            quantization.scale = np.array([scale], np.float32)
            quantization.zeroPoint = np.array([zero_point], np.int64)
        return schema.TensorT(
            shape=list(shape), type=_TYPES[dtype], buffer=0, name=name, quantization=quantization
        )

    def reshape(output: int) -> Any:
        options = schema.ReshapeOptionsT(newShape=OUTPUT_SHAPE)
        return schema.OperatorT(
            opcodeIndex=0,
            inputs=[0],
            outputs=[output],
            builtinOptionsType=schema.BuiltinOptions.ReshapeOptions,
            builtinOptions=options,
        )

    code = schema.OperatorCodeT(
        builtinCode=schema.BuiltinOperator.RESHAPE,
        deprecatedBuiltinCode=schema.BuiltinOperator.RESHAPE,
        version=1,
    )
    graph = schema.SubGraphT(
        tensors=[tensor("t_in", shape), tensor("t_a", OUTPUT_SHAPE), tensor("t_b", OUTPUT_SHAPE)],
        inputs=[0],
        outputs=[2, 1],  # not in the order of the spec: names decide
        operators=[reshape(1), reshape(2)],
        name="main",
    )
    signature = schema.SignatureDefT(
        inputs=[schema.TensorMapT(name="images", tensorIndex=0)],
        outputs=[
            schema.TensorMapT(name="class_logits", tensorIndex=2),
            schema.TensorMapT(name="box_offsets", tensorIndex=1),
        ],
        signatureKey="serving_default",
        subgraphIndex=0,
    )
    entries = metadata or {}
    model = schema.ModelT(
        version=3,
        operatorCodes=[code],
        subgraphs=[graph],
        buffers=[schema.BufferT(), *(schema.BufferT(data=list(content)) for content in entries.values())],
        metadata=[schema.MetadataT(name=name, buffer=index) for index, name in enumerate(entries, 1)] or None,
        signatureDefs=[signature],
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
