"""A float graph in float16 between float32 inputs and outputs."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from edgedet.boxes import Floats
from edgedet.errors import CheckpointError

LARGEST = torch.finfo(torch.float16).max


class Halved(nn.Module):
    """A copy of a graph that computes in float16: the casts are the first and the last operators.

    The exporter of torch then gives every constant its type, and nodes in their order, which
    `onnxruntime.transformers.float16` does not: it appends the cast of an input behind what reads it.
    """

    def __init__(self, graph_module: GraphModule) -> None:
        super().__init__()
        self.graph_module = copy.deepcopy(graph_module).half()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Float32 `[1, 3, h, w]` in, float32 outputs in the graph's order out."""
        return tuple(output.float() for output in self.graph_module(images.half()))


def check_fits_half(graph_module: GraphModule, tensors: Iterable[Floats]) -> None:
    """Refuse a graph whose numbers float16 does not hold.

    Looked at in float32, because runtimes without float16 kernels compute in float32 and do not overflow.

    Args:
        graph_module: The float graph.
        tensors: Inputs to run it on.

    Raises:
        CheckpointError: A parameter, or a value on one of these inputs, is larger than float16's largest.
    """
    interpreter = _LargestValue(graph_module)
    with torch.inference_mode():
        for tensor in tensors:
            interpreter.run(torch.from_numpy(tensor))
    if interpreter.largest > LARGEST:
        raise CheckpointError(
            "the checkpoint cannot be exported in fp16",
            got=f"values up to {interpreter.largest:.3g} in {interpreter.where}",
            expected=f"{LARGEST:g} at most, the largest number of float16",
            fix="leave fp16 out: --precision fp32",
        )


class _LargestValue(Interpreter):
    """Runs a graph and remembers the largest absolute value and the node that has it."""

    largest = 0.0
    where = ""

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
            found = float(value.abs().max())
            if found > self.largest:
                self.largest, self.where = found, n.name
        return value
