"""Multiply-accumulates of a captured graph: what share of the work a choice of layers stands for."""

from __future__ import annotations

from torch.fx import GraphModule

from edgedet.models.capture import parameter_of
from edgedet_calibration.placement import WEIGHTED


def multiply_accumulates(graph_module: GraphModule) -> dict[str, int]:
    """Of every convolution and linear layer, by node name, for one image."""
    return {
        node.name: node.meta["val"].numel() * weight[0].numel()
        for node in graph_module.graph.nodes
        if node.target in WEIGHTED and (weight := parameter_of(graph_module, node.args[1])) is not None
    }
