"""What litert-torch leaves undone of TFLite's 16x8 specification, before and behind its conversion.

The converter knows no int16 concatenation, which the runtime has, and moves the one that makes an output in
front of the dequantization. So the graph is converted with the concatenation's inputs as outputs, and the
flatbuffer gets it back. It also writes biases as int32, where the kernels read int64.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from edgedet.errors import VendorError
from edgedet_export.tflite_boundary import operator_code, output_number, pack, unpack

_CONCATENATION = torch.ops.aten.cat.default
_WEIGHTED = {
    schema.BuiltinOperator.CONV_2D,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D,
    schema.BuiltinOperator.FULLY_CONNECTED,
}


@dataclass(frozen=True, slots=True)
class Joint:
    """An output that was cut.

    Attributes:
        parts: How many outputs of the cut graph it is made of.
        axis: Along which they are concatenated, from 0.
    """

    parts: int
    axis: int


def cut(graph_module: GraphModule) -> tuple[GraphModule, tuple[Joint, ...]]:
    """A copy of a graph whose outputs are the inputs of those concatenations that made them.

    Raises:
        VendorError: There is another concatenation of quantized tensors.
    """
    graph_module = copy.deepcopy(graph_module)
    graph = graph_module.graph
    output = graph.output_node()
    joints: list[Joint] = []
    parts: list[Any] = []
    outputs: Any = output.args[0]
    for node in outputs:
        pieces = list(node.args[0]) if node.target is _CONCATENATION else [node]
        if node.target is _CONCATENATION:
            _check_quantized(pieces)
        axis = node.args[1] if node.target is _CONCATENATION and len(node.args) > 1 else 0
        joints.append(Joint(len(pieces), axis % node.meta["val"].ndim))
        parts += pieces
    output.args = (tuple(parts),)
    graph.eliminate_dead_code()
    _check_no_concatenation(graph.nodes)
    codegen: Any = graph._codegen  # it has no public setter, and a graph's signature is part of it
    out_spec = pytree.tree_structure(tuple(range(len(parts))))
    codegen.pytree_info = codegen.pytree_info._replace(out_spec=out_spec)
    graph_module.recompile()
    return graph_module, tuple(joints)


def _check_quantized(pieces: Iterable[Node]) -> None:
    """Refuse outputs whose predictors are partly in float: only integers of one scale can be joined."""
    sources = [_source(piece) for piece in pieces]
    floats = [source.name for source in sources if "dequantize" not in str(source.target)]
    if 0 < len(floats) < len(sources):
        raise VendorError(
            "the detector cannot be written with 16-bit activations",
            got=f"{', '.join(floats[:3])} in float, beside other predictors of the same output",
            expected="all predictors of an output in integers, or none",
            fix="take them out of the recipe's float_layers, or leave int8-a16 out of --precision",
        )


def _source(node: Node) -> Node:
    """What gives a value before it is reshaped."""
    while "dequantize" not in str(node.target) and len(node.all_input_nodes) == 1:
        node = node.all_input_nodes[0]
    return node


def _check_no_concatenation(nodes: Iterable[Node]) -> None:
    found = [node.name for node in nodes if node.target is _CONCATENATION]
    if found:
        raise VendorError(
            "litert-torch could not convert the detector with 16-bit activations",
            got=f"a concatenation inside the graph: {', '.join(found[:3])}",
            expected="operators that its int16 conversion knows",
            fix="leave int8-a16 out of --precision, or take a backbone without concatenations",
        )


def join(content: bytes, joints: Sequence[Joint]) -> bytes:
    """Concatenate the outputs of a converted cut graph again, as integers of one scale."""
    model = unpack(content)
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    entries = iter(sorted(signature.outputs, key=output_number))
    kept, outputs = [], []
    for joint in joints:
        entry, *others = (next(entries) for _ in range(joint.parts))
        if others:
            indices = [one.tensorIndex for one in (entry, *others)]
            entry.tensorIndex = _concatenated(model, indices, joint.axis)
        kept.append(entry)
        outputs.append(entry.tensorIndex)
    signature.outputs, graph.outputs = kept, outputs
    return pack(model)


def widen_biases(content: bytes) -> bytes:
    """Biases of quantized convolutions from int32 to int64; their values and scales stay."""
    model = unpack(content)
    graph = model.subgraphs[0]
    indices = {
        operator.inputs[2]
        for operator in graph.operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode in _WEIGHTED and len(operator.inputs) > 2
    }
    for index in indices:
        tensor = graph.tensors[index] if index >= 0 else None
        if tensor is None or tensor.type != schema.TensorType.INT32:
            continue
        values = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.int32).astype(np.int64)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        model.buffers.append(buffer)
        tensor.buffer, tensor.type = len(model.buffers) - 1, schema.TensorType.INT64
    return pack(model)


def _concatenated(model: Any, indices: Sequence[int], axis: int) -> int:
    graph = model.subgraphs[0]
    parts = [graph.tensors[index] for index in indices]
    joined = copy.deepcopy(parts[0])
    scales = {float(part.quantization.scale[0]) for part in parts if part.type != schema.TensorType.FLOAT32}
    if len(scales) > 1:  # predictors of one output share a range
        raise ValueError(f"parts of one output with {len(scales)} scales")
    shape = np.array(parts[0].shape)
    shape[axis] = sum(int(part.shape[axis]) for part in parts)
    joined.name, joined.shape, joined.shapeSignature, joined.buffer = b"joined", shape, None, 0
    graph.tensors.append(joined)
    operator = schema.OperatorT()
    operator.opcodeIndex = operator_code(model, schema.BuiltinOperator.CONCATENATION, version=3)
    operator.inputs, operator.outputs = list(indices), [len(graph.tensors) - 1]
    operator.builtinOptionsType = schema.BuiltinOptions.ConcatenationOptions
    operator.builtinOptions = schema.ConcatenationOptionsT()
    operator.builtinOptions.axis = axis
    graph.operators = [*graph.operators, operator]
    return len(graph.tensors) - 1
