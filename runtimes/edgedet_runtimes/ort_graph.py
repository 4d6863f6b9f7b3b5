"""The graph that ONNX Runtime executes, from the model that it writes after optimizing and from its profile.

The model tells what reads what; it may lack the types of tensors, which the profile tells with the times.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from edgedet.executed import ExecutedGraph, ExecutedOperator, Role
from edgedet_runtimes.ort_model import read_nodes

_CONVERSIONS = {"Cast", "DequantizeLinear", "QuantizeLinear"}
_MOVES = {
    "Concat",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Pad",
    "QLinearConcat",
    "ReorderInput",
    "ReorderOutput",
    "Reshape",
    "Shape",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}
_UNKNOWN = ("unknown", "unknown")
_DTYPES = {"float": "float32", "double": "float64"}


def executed_graph(runtime: str, optimized: Path, profile: Path) -> ExecutedGraph:
    """Join both.

    Args:
        runtime: Name of the runtime.
        optimized: What `optimized_model_filepath` wrote.
        profile: What `end_profiling` wrote, of the same session.
    """
    micros: dict[str, float] = defaultdict(float)
    types: dict[str, tuple[str, str]] = {}
    for event in json.loads(profile.read_text("utf-8")):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            micros[name] += event["dur"]
            types[name] = (
                _dtype(event["args"], "input_type_shape"),
                _dtype(event["args"], "output_type_shape"),
            )
    nodes = read_nodes(optimized.read_bytes())
    maker = {tensor: node.name for node in nodes for tensor in node.outputs}
    total = sum(micros.values())
    operators = tuple(
        ExecutedOperator(
            name=node.name,
            type=node.type,
            role=_role(node.type),
            precision=types.get(node.name, _UNKNOWN)[0],
            writes=types.get(node.name, _UNKNOWN)[1],
            inputs=tuple(dict.fromkeys(maker[t] for t in node.inputs if t in maker)),
            time_share=micros[node.name] / total if total else None,
        )
        for node in nodes
    )
    return ExecutedGraph(runtime=runtime, operators=operators)


def _role(kind: str) -> Role:
    return "convert" if kind in _CONVERSIONS else "move" if kind in _MOVES else "compute"


def _dtype(arguments: dict[str, Any], key: str) -> str:
    """Of the first one: further inputs are scales, zero points, weights and biases of integer operators."""
    shapes = arguments.get(key) or [{}]
    dtype = next(iter(shapes[0]), "unknown")
    return _DTYPES.get(dtype, dtype)
