"""Edits of a TFLite flatbuffer's boundary: float inputs and outputs, and the names of its signature."""

from __future__ import annotations

from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from edgedet.spec import DetectorSpec

_FILE_IDENTIFIER = b"TFL3"
_INTEGERS = {schema.TensorType.INT8, schema.TensorType.INT16, schema.TensorType.UINT8}


def with_float_boundary(content: bytes) -> bytes:
    """Put QUANTIZE behind every integer input and DEQUANTIZE before every integer output."""
    model = unpack(content)
    graph = model.subgraphs[0]
    inputs = {index: _float_twin(graph, index) for index in graph.inputs if _is_quantized(graph, index)}
    outputs = {index: _float_twin(graph, index) for index in graph.outputs if _is_quantized(graph, index)}
    if not inputs and not outputs:
        return content
    quantize = operator_code(model, schema.BuiltinOperator.QUANTIZE)
    dequantize = operator_code(model, schema.BuiltinOperator.DEQUANTIZE)
    before = [_operator(quantize, twin, index) for index, twin in inputs.items()]
    after = [_operator(dequantize, index, twin) for index, twin in outputs.items()]
    graph.operators = before + list(graph.operators) + after
    graph.inputs = [inputs.get(index, index) for index in graph.inputs]
    graph.outputs = [outputs.get(index, index) for index in graph.outputs]
    for signature in model.signatureDefs or []:
        for entry in signature.inputs:
            entry.tensorIndex = inputs.get(entry.tensorIndex, entry.tensorIndex)
        for entry in signature.outputs:
            entry.tensorIndex = outputs.get(entry.tensorIndex, entry.tensorIndex)
    return pack(model)


def name_signature(content: bytes, spec: DetectorSpec) -> bytes:
    """Give inputs and outputs the spec's names, in the signature and as tensor names."""
    model = unpack(content)
    graph = model.subgraphs[0]
    signature = model.signatureDefs[0]
    # The converter numbers outputs in the order of the graph's; the subgraph's own order may differ.
    signature.outputs.sort(key=output_number)
    names = [output.name for output in spec.outputs]
    for entries, wanted in ((signature.inputs, [spec.input.name]), (signature.outputs, names)):
        for entry, name in zip(entries, wanted, strict=True):
            entry.name = name
            graph.tensors[entry.tensorIndex].name = name
    return pack(model)


def output_number(entry: Any) -> int:
    """The number that the converter gave an output of the signature."""
    return int(bytes(entry.name).rsplit(b"_", 1)[1])


def unpack(content: bytes) -> Any:
    """A flatbuffer as objects that can be changed."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))


def pack(model: Any) -> bytes:
    """The flatbuffer of a changed model."""
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=_FILE_IDENTIFIER)
    return bytes(builder.Output())


def _is_quantized(graph: Any, index: int) -> bool:
    return graph.tensors[index].type in _INTEGERS


def _float_twin(graph: Any, index: int) -> int:
    tensor = graph.tensors[index]
    twin = schema.TensorT()
    twin.name = bytes(tensor.name) + b"_float"
    twin.shape, twin.shapeSignature = tensor.shape, tensor.shapeSignature
    twin.type, twin.buffer, twin.hasRank = schema.TensorType.FLOAT32, 0, True
    graph.tensors.append(twin)
    return len(graph.tensors) - 1


def operator_code(model: Any, builtin: int, version: int = 2) -> int:
    """The index of a builtin operator's code, which is added where the model has none."""
    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == builtin:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _operator(code: int, source: int, destination: int) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, [source], [destination]
    return operator
