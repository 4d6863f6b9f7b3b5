"""The layers of a fake-quantized graph, computed again from what a runtime's layers read."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule, Interpreter, Node

from edgedet.boxes import Floats
from edgedet.intermediate import Intermediate, Intermediates
from edgedet.parity.layers import LayerDifference, LayersReport
from edgedet.parity.snr import snr_db
from edgedet.spec import DetectorSpec
from edgedet_calibration.placement import ACTIVATIONS, CLAMPS, MOVES, WEIGHTED
from edgedet_calibration.quantize import is_quantizer

_Key = tuple[float, int, tuple[int, ...]]  # scale, zero point and shape

# A tensor of another scale that differs by twice the energy of what it should be is some other tensor.
_FOREIGN = 2.0


@dataclass(slots=True)
class _Sums:
    """Running sums of what differs in one tensor."""

    signal: float = 0.0
    noise: float = 0.0
    local_signal: float = 0.0
    local_noise: float = 0.0

    def add(self, theirs: torch.Tensor, local: torch.Tensor, ours: torch.Tensor) -> None:
        """Take one image: the runtime's values, the reference's from what it read, and its own."""
        self.signal += _energy(ours)
        self.noise += _energy(ours - theirs)
        self.local_signal += _energy(local)
        self.local_noise += _energy(local - theirs)


def _energy(values: torch.Tensor) -> float:
    return float(values.double().square().sum())


@dataclass(slots=True)
class _Layer:
    """A quantizer of the reference and what differs behind it."""

    quantizer: Node
    scale: float
    zero_point: int
    sums: _Sums = field(default_factory=_Sums)
    found_grid: tuple[float, int] | None = None
    max_steps: float = 0.0
    moved: int = 0
    count: int = 0

    def add(self, one: Intermediate, local: torch.Tensor, ours: torch.Tensor) -> None:
        """Take one image: the runtime's tensor, the reference's from what it read, and its own."""
        theirs = torch.from_numpy(one.values())
        self.sums.add(theirs, local, ours)
        self.found_grid = float(np.float32(one.scale)), one.zero_point
        steps = (local - theirs).abs() / self.scale
        self.max_steps = max(self.max_steps, round(float(steps.max()), 3))
        self.moved += int((steps >= 0.5).sum())
        self.count += steps.numel()

    def difference(self) -> LayerDifference:
        """What was found."""
        node = self.quantizer.args[0]
        assert isinstance(node, Node)
        return LayerDifference(
            name=node.name,
            module=_module_of(node),
            local_snr_db=snr_db(self.sums.local_signal, self.sums.local_noise),
            snr_db=snr_db(self.sums.signal, self.sums.noise),
            max_steps=self.max_steps,
            moved_fraction=self.moved / self.count,
            expected_grid=(float(np.float32(self.scale)), self.zero_point),
            grid=self.found_grid,
        )


class GraphLayers:
    """Compares a runtime's integer tensors with those of a reference: a `LayerComparison`.

    Args:
        graph_module: The reference.
        spec: Of the detector.
    """

    def __init__(self, graph_module: GraphModule, spec: DetectorSpec) -> None:
        self._graph_module, self._spec = graph_module, spec
        self._images = 0
        self._outputs = {output.name: _Sums() for output in spec.outputs}
        self._plain = _Sums()
        self._pairs: dict[Node, int] | None = None
        self._layers = {
            node: _Layer(node, *_grid(node)) for node in graph_module.graph.nodes if _quantizes(node)
        }

    def add(self, feeds: Mapping[str, Floats], found: Intermediates, outputs: Mapping[str, Floats]) -> None:
        """Take one image, what the runtime made of it, and its raw outputs where no layers are read."""
        tensor = torch.from_numpy(feeds[self._spec.input.name])
        self._images += 1
        with torch.inference_mode():
            plain = _Recorder(self._graph_module, {})
            ours = plain.run(tensor)
            if self._pairs is None:
                self._pairs = dict(_paired(self._layers, plain.values, found.tensors))
            theirs = {node: found.tensors[index] for node, index in self._pairs.items()}
            forced = _Recorder(self._graph_module, theirs)
            local = forced.run(tensor)
            for node, one in theirs.items():
                self._layers[node].add(one, forced.values[node], plain.values[node])
            for (name, sums), here, own in zip(self._outputs.items(), local, ours, strict=True):
                read = torch.from_numpy(found.outputs[name])
                sums.add(read, here, own)
                self._plain.add(read, here, torch.from_numpy(outputs[name]))

    def report(self) -> LayersReport:
        """What was found, of the layers that the runtime has."""
        ends = (
            LayerDifference(
                name=name,
                module="",
                local_snr_db=snr_db(sums.local_signal, sums.local_noise),
                snr_db=snr_db(sums.signal, sums.noise),
            )
            for name, sums in self._outputs.items()
        )
        layers = (layer.difference() for layer in self._layers.values() if layer.count)
        own = [layer for layer in self._layers.values() if not _is_moved(layer.quantizer)]
        missing = sum(not layer.count for layer in own)
        return LayersReport(
            images=self._images,
            quantized=len(own),
            missing=missing,
            outputs_snr_db=snr_db(self._plain.signal, self._plain.noise),
            layers=(*layers, *ends),
        )


class _Recorder(Interpreter):
    """Runs the graph and keeps what quantizers give, dequantized; given values take their place."""

    def __init__(self, graph_module: GraphModule, given: dict[Node, Intermediate]) -> None:
        super().__init__(graph_module)
        self.values: dict[Node, torch.Tensor] = {}
        self._given = given

    def run_node(self, n: Node) -> Any:
        """One node; a quantizer that is given gives that to its readers."""
        value = super().run_node(n)
        if not _quantizes(n):
            return value
        scale, zero_point = _grid(n)
        self.values[n] = (value.float() - zero_point) * scale
        if n not in self._given:
            return value
        steps = torch.from_numpy(self._given[n].values()) / scale + zero_point
        return steps.round().clamp(float(n.args[3]), float(n.args[4])).to(value.dtype)  # type: ignore[arg-type]


def _quantizes(node: Node) -> bool:
    return is_quantizer(node, "quantize_per_tensor")


def _is_moved(quantizer: Node) -> bool:
    """Whether it quantizes values that were only moved, which a runtime may leave out."""
    source = quantizer.args[0]
    return isinstance(source, Node) and source.target in MOVES - {torch.ops.aten.upsample_bilinear2d.vec}


def _grid(quantizer: Node) -> tuple[float, int]:
    """Scale and zero point."""
    scale, zero_point = quantizer.args[1:3]
    assert isinstance(scale, float)
    assert isinstance(zero_point, int)
    return scale, zero_point


def _paired(
    layers: Mapping[Node, _Layer], values: Mapping[Node, torch.Tensor], tensors: Sequence[Intermediate]
) -> Iterator[tuple[Node, int]]:
    """Quantizers, and which of the runtime's tensors are theirs.

    Files keep no names that can be relied on. Scale, zero point and shape tell most tensors apart, and their
    values the others; they also tell those to which a file gives another scale.
    """
    wanted: dict[_Key, list[Node]] = defaultdict(list)
    pool: dict[_Key, list[int]] = defaultdict(list)
    for node, layer in layers.items():
        wanted[_key(layer.scale, layer.zero_point, values[node].shape)].append(node)
    for index, one in enumerate(tensors):
        pool[_key(one.scale, one.zero_point, one.integers.shape)].append(index)
    found: dict[Node, int] = {}
    for key in wanted.keys() & pool.keys():
        found.update(_nearest(wanted[key], pool[key], values, tensors))
    left = set(range(len(tensors))) - set(found.values())
    for shape in {tensors[index].integers.shape for index in left}:
        nodes = [node for node in layers if node not in found and values[node].shape == shape]
        alike = [index for index in sorted(left) if tensors[index].integers.shape == shape]
        found.update(_nearest(nodes, alike, values, tensors, limit=_FOREIGN))
    return ((node, found[node]) for node in layers if node in found)


def _nearest(
    nodes: Sequence[Node],
    pool: Sequence[int],
    values: Mapping[Node, torch.Tensor],
    tensors: Sequence[Intermediate],
    limit: float = math.inf,
) -> dict[Node, int]:
    """One tensor for each node, those that differ least first; `limit` is a share of the node's energy."""
    if len(nodes) == len(pool) == 1 and limit == math.inf:
        return {nodes[0]: pool[0]}
    given = {index: torch.from_numpy(tensors[index].values()) for index in pool}
    distances = sorted(
        (_energy(values[node] - one) / max(_energy(values[node]), 1e-12), place, index)
        for place, node in enumerate(nodes)
        for index, one in given.items()
    )
    found: dict[Node, int] = {}
    for distance, place, index in distances:
        if distance <= limit and nodes[place] not in found and index not in found.values():
            found[nodes[place]] = index
    return found


def _key(scale: float, zero_point: int, shape: Sequence[int]) -> _Key:
    return float(np.float32(scale)), zero_point, tuple(shape)


def _module_of(node: Node) -> str:
    """The module whose convolution a tensor comes from, or that it is itself computed in."""
    while node.target in CLAMPS | ACTIVATIONS and isinstance(node.args[0], Node):
        if node.args[0].target not in WEIGHTED | CLAMPS | ACTIVATIONS:
            break
        node = node.args[0]
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""
