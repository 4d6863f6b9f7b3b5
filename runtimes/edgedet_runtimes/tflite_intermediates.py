"""A TFLite flatbuffer with its integer tensors as further outputs.

Needs ai-edge-litert, whose package has the schema; tflite-runtime has not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

_IDENTIFIER = b"TFL3"
_INTEGERS = {schema.TensorType.INT8, schema.TensorType.INT16, schema.TensorType.UINT8}
# They give integers that another operator computed.
_COPIES = {
    schema.BuiltinOperator.PAD,
    schema.BuiltinOperator.PADV2,
    schema.BuiltinOperator.RESHAPE,
    schema.BuiltinOperator.TRANSPOSE,
}


@dataclass(frozen=True, slots=True)
class Added:
    """A tensor that was made an output.

    Attributes:
        index: In the list of tensors.
        scale: One step.
        zero_point: The integer of 0.
        channels_last: Whether it is `[n, h, w, c]`.
    """

    index: int
    scale: float
    zero_point: int
    channels_last: bool


def with_integer_outputs(model: bytes, channels_last_image: bool) -> tuple[bytes, tuple[Added, ...]]:
    """The model with every quantized activation as an output, and what they are, in the order of the file.

    Args:
        model: The flatbuffer.
        channels_last_image: Whether its input is; otherwise it is transposed behind its quantization.
    """
    unpacked: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model, 0))
    graph = unpacked.subgraphs[0]
    codes = [code.builtinCode for code in unpacked.operatorCodes]
    inputs, added, outside = set(graph.inputs), [], set(graph.outputs)
    for operator in graph.operators:
        if codes[operator.opcodeIndex] in _COPIES:
            continue
        planes = not channels_last_image and not inputs.isdisjoint(operator.inputs)
        for index in operator.outputs:
            tensor = graph.tensors[index]
            grid = tensor.quantization
            if tensor.type not in _INTEGERS or index in outside or grid is None or grid.scale is None:
                continue
            channels_last = len(tensor.shape) == 4 and not planes
            added.append(Added(index, float(grid.scale[0]), int(grid.zeroPoint[0]), channels_last))
    graph.outputs = [*graph.outputs, *(one.index for one in added)]
    unpacked.signatureDefs = []
    builder = flatbuffers.Builder(len(model))
    builder.Finish(unpacked.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output()), tuple(added)
