"""The graph that LiteRT executes, from the operators of an interpreter that has allocated its tensors.

Their list keeps the operators of the file and adds one DELEGATE for each part that a delegate (XNNPACK on the
CPU) took; which operators that part holds follows from the tensors that it reads and writes. The interpreter
tells no times in Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgedet.executed import ExecutedGraph, ExecutedOperator, Role

_DELEGATE = "DELEGATE"

_MOVES = {
    "CONCATENATION",
    "DEPTH_TO_SPACE",
    "EXPAND_DIMS",
    "GATHER",
    "PACK",
    "PAD",
    "PADV2",
    "RESHAPE",
    "SHAPE",
    "SLICE",
    "SPACE_TO_DEPTH",
    "SPLIT",
    "SQUEEZE",
    "STRIDED_SLICE",
    "TRANSPOSE",
    "UNPACK",
}


def executed_graph(
    runtime: str, details: Sequence[Mapping[str, Any]], tensor_names: Mapping[int, str]
) -> ExecutedGraph:
    """The graph of an interpreter.

    Args:
        runtime: Name of the runtime.
        details: `Interpreter._get_ops_details()`, after `allocate_tensors`.
        tensor_names: Names of tensors by index; an operator is named after its first output, and its index.
    """
    parts = [one for one in details if one["op_name"] == _DELEGATE]
    own = [one for one in details if one["op_name"] != _DELEGATE]
    maker = {int(tensor): place for place, one in enumerate(own) for tensor in one["outputs"]}
    taken = {place for part in parts for place in _members(part, own, maker)}
    names = [f"{_short(tensor_names.get(int(one['outputs'][0]), ''))}#{one['index']}" for one in own]
    return ExecutedGraph(
        runtime=runtime,
        operators=tuple(
            ExecutedOperator(
                name=names[place],
                type=one["op_name"],
                role=_role(one["op_name"]),
                precision=np.dtype(one["operand_types"][0]).name,
                writes=np.dtype(one["result_types"][0]).name,
                inputs=tuple(dict.fromkeys(names[maker[t]] for t in map(int, one["inputs"]) if t in maker)),
                delegated=place in taken,
            )
            for place, one in enumerate(own)
        ),
        partitions=len(parts),
    )


def _members(part: Mapping[str, Any], own: Sequence[Mapping[str, Any]], maker: Mapping[int, int]) -> set[int]:
    """Places of the operators between what a delegated part writes and what it reads."""
    boundary = set(map(int, part["inputs"]))
    pending, members = list(map(int, part["outputs"])), set[int]()
    while pending:
        place = maker.get(pending.pop())
        if place is not None and place not in members:
            members.add(place)
            pending += [tensor for tensor in map(int, own[place]["inputs"]) if tensor not in boundary]
    return members


def _short(name: str) -> str:
    """The end of a tensor's name: converters join the paths of all modules that were fused into it."""
    *_, last = [""] + [part for part in name.split(";") if part and not part.isdecimal()]
    return "/".join(step.rpartition(".")[2] for step in last.split("/")[-2:])


def _role(kind: str) -> Role:
    if kind in {"CAST", "DEQUANTIZE", "QUANTIZE"}:
        return "convert"
    return "move" if kind in _MOVES else "compute"
