"""The graph that OpenVINO executes on the CPU, from its runtime model.

Each node of that model tells the kind of its layer, the layers of the artifact that were fused into it and
the precision that it writes. What a node computes on is told by what the nodes before it write: the runtime
precision that OpenVINO states of an addition of floats and integers may be that of either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgedet.executed import ExecutedGraph, ExecutedOperator, Role

# Further inputs of these are weights, biases and what a fused addition adds.
_WEIGHTED = {"Convolution", "Deconvolution", "FullyConnected"}
_OUTSIDE = {"Const", "Input", "Output"}
_MOVES = {
    "Broadcast",
    "Concatenation",
    "DepthToSpace",
    "Gather",
    "Pad",
    "Reorder",
    "Reshape",
    "ShapeOf",
    "SpaceToDepth",
    "Split",
    "StridedSlice",
    "Transpose",
}
_DTYPES = {
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "i8": "int8",
    "u8": "uint8",
    "i32": "int32",
    "i64": "int64",
}


def executed_graph(runtime: str, model: Any, seconds: Mapping[str, float]) -> ExecutedGraph:
    """The graph of a compiled model.

    Args:
        runtime: Name of the runtime.
        model: `CompiledModel.get_runtime_model()`.
        seconds: Time by name of node.
    """
    nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
    sources = {
        name: [port.get_node().get_friendly_name() for port in node.input_values()]
        for name, node in nodes.items()
    }
    dynamic = _behind_inputs(nodes, sources)
    live = [name for name in nodes if name in dynamic and _fact(nodes[name], "layerType") not in _OUTSIDE]
    shown = {name: _shown(nodes[name]) for name in live}
    total = sum(seconds.get(name, 0.0) for name in live)
    operators = []
    for name in live:
        read = [source for source in sources[name] if source in dynamic]
        precision = _precision(nodes[name], [nodes[source] for source in read])
        operators.append(
            ExecutedOperator(
                name=shown[name],
                type=_fact(nodes[name], "layerType"),
                role=_role(nodes[name], precision, len(read)),
                precision=precision,
                writes=_written(nodes[name]),
                inputs=tuple(dict.fromkeys(shown[source] for source in read if source in shown)),
                time_share=seconds.get(name, 0.0) / total if total else None,
            )
        )
    return ExecutedGraph(runtime=runtime, operators=tuple(operators))


def _behind_inputs(nodes: Mapping[str, Any], sources: Mapping[str, list[str]]) -> set[str]:
    """What depends on an input of the model; the rest was computed when the model was compiled."""
    found: set[str] = set()
    for name, node in nodes.items():
        if _fact(node, "layerType") == "Input" or not found.isdisjoint(sources[name]):
            found.add(name)
    return found


def _fact(node: Any, key: str) -> str:
    facts = node.get_rt_info()
    return str(facts[key].astype(str)) if key in facts else ""


def _written(node: Any) -> str:
    dtype = _fact(node, "outputPrecisions").partition(",")[0]
    return _DTYPES.get(dtype, dtype)


def _layers(node: Any) -> list[str]:
    return _fact(node, "originalLayersNames").split(",")


def _shown(node: Any) -> str:
    """A fused sequence is named after its layers, since its own name is that of the last one."""
    name = str(node.get_friendly_name())
    return " + ".join(_layers(node)) if _fact(node, "layerType") == "Subgraph" else name


def _precision(node: Any, read: list[Any]) -> str:
    """Floats if any of what it reads are floats: it then computes in float."""
    if _fact(node, "layerType") in _WEIGHTED:
        read = read[:1]
    dtypes = [_written(source) for source in read]
    return next((dtype for dtype in dtypes if "float" in dtype), dtypes[0])


def _role(node: Any, precision: str, inputs: int) -> Role:
    changes = ("float" in precision) != ("float" in _written(node))
    if _fact(node, "layerType") in _MOVES:
        return "convert" if changes else "move"
    return "convert" if changes and inputs == 1 and _only_converts(node) else "compute"


def _only_converts(node: Any) -> bool:
    """Whether nothing but a quantization or a dequantization was fused into a node.

    OpenVINO names the parts of a dequantization after the layer whose values they give.
    """
    *others, last = _layers(node)
    is_weighted = _fact(node, "layerType") in _WEIGHTED
    return not is_weighted and all(other.startswith(f"{last}/Dequantization") for other in others)
