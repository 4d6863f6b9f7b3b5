"""Channel equalization: channels that share one scale are brought to the same range, at no cost.

A channel may leave its producer divided by a factor if everything that reads it multiplies it again. Sums,
ReLU, pooling, concatenation and the gate of squeeze-and-excite pass a factor on, so that all channels that
they tie to each other, such as those of a residual stream, get one (Nagel et al., Data-Free Quantization,
ICCV 2019, section 4.1, does it for pairs of layers). Clamps at 6, hard-swish and the graph's own inputs and
outputs fix it at 1. Factors come from measured ranges and the weights that read them (SmoothQuant, ICML 2023,
equation 4): rows of weights have scales of their own and take a division for nothing, columns do not.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgedet.errors import BundleError
from edgedet.models.capture import Captured, parameter_of
from edgedet.models.detector import Detector
from edgedet.progress import Track, silent
from edgedet_calibration.images import CalibrationImages
from edgedet_calibration.placement import CONVOLUTIONS, place

_aten = torch.ops.aten

Factors = dict[str, tuple[float, ...]]
_Ids = NDArray[np.int64]

# What a channel's factor passes through unchanged.
_HOMOGENEOUS = (
    _aten.adaptive_avg_pool2d.default,
    _aten.avg_pool2d.default,
    _aten.max_pool2d.default,
    _aten.relu.default,
    _aten.upsample_bilinear2d.vec,
    _aten.upsample_nearest2d.vec,
)
# How much of a channel's excess leaves the activation; the rest stays, to spare the columns that read it.
_STRENGTH = 0.75
_LARGEST_FACTOR = 2.0**12


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """Which channels of a graph's tensors have one factor.

    Attributes:
        ids: By node name, an id for each channel of its value; equal ids have one factor.
        free: Ids whose factor is not fixed at 1.
    """

    ids: dict[str, _Ids]
    free: frozenset[int]


def channels_of(graph_module: GraphModule) -> Channels:
    """Tie the channels of a captured graph to each other."""
    ties = _Ties()
    owned = _owned_parameters(graph_module)
    for node in graph_module.graph.nodes:
        value = node.meta.get("val")
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else ()
        if len(shape) == 4 and node.op in ("call_function", "placeholder"):
            ties.enter(node, shape, owned)
        else:
            ties.fix(*node.all_input_nodes)
    return ties.channels()


class _Ties:
    """Union-find over the channels of all tensors."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._ids: dict[Node, _Ids] = {}
        self._fixed: set[int] = set()

    def enter(self, node: Node, shape: tuple[int, ...], owned: frozenset[Node]) -> None:
        """Take a node whose value is `[n, c, h, w]` in."""
        sources = [arg for arg in node.all_input_nodes if arg in self._ids]
        if node.target in CONVOLUTIONS:
            self._new(node, shape[1])
            if node not in owned:
                self.fix(node, *sources)
        elif node.target in _HOMOGENEOUS or _is_spatial_mean(node):
            self._ids[node] = self._ids.get(sources[0], self._new(node, shape[1]))
        elif _adds_alike(node) and len(sources) == 2:
            self._ids[node] = self._tied(sources)
        elif (gated := _gated(node)) is not None and all(arg in self._ids for arg in gated):
            self.fix(gated[1])
            self._ids[node] = self._ids[gated[0]]
        elif (parts := _concatenated(node)) and all(part in self._ids for part in parts):
            self._ids[node] = np.concatenate([self._ids[part] for part in parts])
        elif node.target is _aten.slice.Tensor and sources and len(node.args) < 5:
            bounds: Any = node.args[2:4] if _axis(node) == 1 else (None,)
            self._ids[node] = self._ids[sources[0]][slice(*bounds)]
        else:
            self._new(node, shape[1])
            self.fix(node, *sources)

    def fix(self, *nodes: Node) -> None:
        """Leave all channels of these nodes as they are."""
        for node in nodes:
            self._fixed.update(self._ids.get(node, np.empty(0, np.int64)).tolist())

    def channels(self) -> Channels:
        """What was tied."""
        fixed = {self._root(i) for i in self._fixed}
        ids = {
            node.name: np.array([self._root(i) for i in found.tolist()], np.int64)
            for node, found in self._ids.items()
        }
        used = {int(i) for found in ids.values() for i in found}
        return Channels(ids, frozenset(used - fixed))

    def _new(self, node: Node, count: int) -> _Ids:
        start = len(self._parents)
        self._parents += range(start, start + count)
        self._ids[node] = np.arange(start, start + count)
        return self._ids[node]

    def _tied(self, nodes: list[Node]) -> _Ids:
        first, *others = (self._ids[node] for node in nodes)
        for other in others:
            for a, b in zip(first.tolist(), other.tolist(), strict=True):
                self._parents[self._root(b)] = self._root(a)
        return first

    def _root(self, index: int) -> int:
        while index != self._parents[index]:
            self._parents[index] = self._parents[self._parents[index]]
            index = self._parents[index]
        return index


def _is_spatial_mean(node: Node) -> bool:
    if node.target is not _aten.mean.dim:
        return False
    axes: Any = node.args[1]
    return {axis % 4 for axis in axes} == {2, 3}


def _adds_alike(node: Node) -> bool:
    """Whether two values of as many channels are added; what is added to a constant cannot be scaled."""
    widths = {arg.meta["val"].shape[1:2] for arg in node.all_input_nodes if arg.op != "get_attr"}
    return node.target is _aten.add.Tensor and len(node.all_input_nodes) == 2 and len(widths) == 1


def _gated(node: Node) -> tuple[Node, Node] | None:
    """The value and the gate `[n, c, 1, 1]` of a product."""
    if node.target is not _aten.mul.Tensor:
        return None
    first, second = node.args[:2]
    if not (isinstance(first, Node) and isinstance(second, Node)):
        return None
    positions = [arg.meta["val"].shape[2:].numel() for arg in (first, second)]
    if positions[1] == 1 < positions[0]:
        return first, second
    return (second, first) if positions[0] == 1 < positions[1] else None


def _concatenated(node: Node) -> list[Node]:
    """The values whose channels a concatenation puts behind each other."""
    if node.target is not _aten.cat.default or _axis(node) != 1:
        return []
    parts: Any = node.args[0]
    return list(parts)


def _axis(node: Node) -> int:
    axis: Any = node.args[1] if len(node.args) > 1 else 0
    return int(axis) % 4


def _owned_parameters(graph_module: GraphModule) -> frozenset[Node]:
    """Convolutions, dense or depthwise, whose weight and bias no other operator reads."""
    readers = Counter(
        str(arg.target)
        for node in graph_module.graph.nodes
        for arg in node.all_input_nodes
        if arg.op == "get_attr"
    )
    return frozenset(
        node
        for node in graph_module.graph.nodes
        if node.target in CONVOLUTIONS
        and (_groups(node) == 1 or _is_depthwise(node))
        and all(not isinstance(arg, Node) or readers[str(arg.target)] == 1 for arg in node.args[1:3])
    )


def _groups(convolution: Node) -> int:
    groups: Any = convolution.args[6] if len(convolution.args) > 6 else 1
    return int(groups)


def _is_depthwise(convolution: Node) -> bool:
    """Whether each channel has one filter of its own."""
    return _groups(convolution) == _width(convolution) == int(convolution.meta["val"].shape[1])


def _source(convolution: Node) -> Node:
    source = convolution.args[0]
    assert isinstance(source, Node)
    return source


def _width(convolution: Node) -> int:
    return int(_source(convolution).meta["val"].shape[1])


def channel_ranges(captured: Captured, tensors: Iterable[Tensor]) -> dict[str, Tensor]:
    """The largest magnitude that each channel of each `[n, c, h, w]` value takes on some images."""
    ranges: dict[str, Tensor] = {}

    class Recorder(Interpreter):
        def run_node(self, n: Node) -> Any:
            value = super().run_node(n)
            if n.op != "get_attr" and isinstance(value, Tensor) and value.ndim == 4:
                seen = value.abs().amax((0, 2, 3))
                ranges[n.name] = torch.maximum(ranges[n.name], seen) if n.name in ranges else seen
            return value

    recorder = Recorder(captured.graph_module)
    with torch.inference_mode():
        for tensor in tensors:
            recorder.run(tensor)
    return ranges


def measured_factors(captured: Captured, calibration: CalibrationImages, track: Track = silent) -> Factors:
    """The factors of a detector, measured on some of its calibration images."""
    tensors = calibration.again(track)
    tracked = track(tensors, "Equalizing channels", len(tensors))
    return equalizing_factors(captured, channel_ranges(captured, tracked))


def equalizing_factors(
    captured: Captured, ranges: Mapping[str, Tensor], strength: float = _STRENGTH
) -> Factors:
    """What to divide each channel of each convolution by, by node name; those that are all 1 are left out.

    Args:
        captured: The float graph.
        ranges: Of `channel_ranges`.
        strength: 1 gives all channels one range; less spares the weights that read them.
    """
    graph_module = captured.graph_module
    channels = channels_of(graph_module)
    quantized = {name: ranges[name] for name in place(graph_module).ranges if name in ranges}
    seen, read = _seen(channels, quantized), _read(graph_module, channels)
    factors: dict[int, float] = {}
    for index in channels.free:
        largest = seen.get(index, 0.0)
        if largest > 0:
            share = read.get(index)  # None behind depthwise convolutions alone, whose columns are rows
            factor = largest if share is None else largest**strength * max(share, 1e-6) ** (strength - 1)
            factors[index] = min(max(factor, 1 / _LARGEST_FACTOR), _LARGEST_FACTOR)
    found = {}
    for node in _convolutions(graph_module):
        row = tuple(factors.get(int(i), 1.0) for i in channels.ids[node.name])
        if any(factor != 1 for factor in row):
            found[node.name] = row
    return found


def _seen(channels: Channels, ranges: Mapping[str, Tensor]) -> dict[int, float]:
    """The largest magnitude of every id, in the tensors of these ranges."""
    seen: dict[int, float] = {}
    for name, largest_of in ranges.items():
        for index, largest in zip(channels.ids[name].tolist(), largest_of.tolist(), strict=True):
            seen[index] = max(seen.get(index, 0.0), largest)
    return seen


def _read(graph_module: GraphModule, channels: Channels) -> dict[int, float]:
    """For ids that dense convolutions read, the largest share that a weight of theirs has in its row."""
    read: dict[int, float] = {}
    for node in _convolutions(graph_module):
        source = channels.ids.get(_source(node).name)
        weight = parameter_of(graph_module, node.args[1])
        if source is None or weight is None or _groups(node) != 1:
            continue
        magnitude = weight.detach().abs().amax((2, 3))
        shares = (magnitude / magnitude.amax(1, keepdim=True).clamp_min(1e-12)).amax(0)
        for index, share in zip(source.tolist(), shares.tolist(), strict=True):
            read[index] = max(read.get(index, 0.0), share)
    return read


def _convolutions(graph_module: GraphModule) -> Iterator[Node]:
    return (node for node in graph_module.graph.nodes if node.target in CONVOLUTIONS)


def equalized(captured: Captured, factors: Mapping[str, tuple[float, ...]]) -> Captured:
    """A copy of a captured graph that computes the same with equalized channels."""
    if not factors:
        return captured
    copied = replace(captured, graph_module=copy.deepcopy(captured.graph_module))
    for layer in _scaled_layers(copied, factors):
        weight, bias = (parameter_of(copied.graph_module, arg) for arg in layer.arguments)
        assert weight is not None
        _multiply(weight, layer.columns / layer.rows)
        if bias is not None:
            _multiply(bias, 1 / layer.given)
    return copied


def equalize(detector: Detector, captured: Captured, factors: Mapping[str, tuple[float, ...]]) -> None:
    """Change a detector in place, so that it computes the same with equalized channels.

    Args:
        detector: The one that was captured.
        captured: Its graph.
        factors: Of `equalizing_factors`.
    """
    for layer in _scaled_layers(captured, factors):
        origin = captured.origins[layer.name]
        weight = detector.get_parameter(origin.weight)
        _multiply(weight, layer.columns)
        if origin.norm is not None:  # takes its channels as they come and gives them scaled
            for name in ("weight", "bias"):
                _multiply(detector.get_parameter(f"{origin.norm}.{name}"), 1 / layer.given)
        else:
            _multiply(weight, 1 / layer.rows)
            if origin.bias is not None:
                _multiply(detector.get_parameter(origin.bias), 1 / layer.given)


@dataclass(frozen=True, slots=True, eq=False)
class _ScaledLayer:
    """What a convolution's weight is to be multiplied with, `columns`, and divided by, `rows`.

    Attributes:
        name: Of its node.
        arguments: The nodes of its weight and bias.
        given: What its output channels are divided by, `[channels]`.
        rows: The same in the shape of the weight.
        columns: In the shape of the weight.
    """

    name: str
    arguments: tuple[object, object]
    given: Tensor
    rows: Tensor
    columns: Tensor


def _scaled_layers(captured: Captured, factors: Mapping[str, tuple[float, ...]]) -> Iterator[_ScaledLayer]:
    channels = channels_of(captured.graph_module)
    by_id: dict[int, float] = {}
    for name, row in factors.items():
        ids = channels.ids.get(name, np.empty(0, np.int64))
        scaled = {int(i) for i, factor in zip(ids, row, strict=False) if factor != 1}
        if len(ids) != len(row) or not channels.free.issuperset(scaled):
            raise BundleError(
                "the calibration is stale: its channel factors are not this detector's",
                got=f"{len(row)} factors for {name}",
                expected=f"{len(ids)}, of channels that can be scaled" if len(ids) else "no such layer",
                fix="calibrate again: export with --calibration DIR",
            )
        by_id.update(zip(ids.tolist(), row, strict=True))
    for node in _convolutions(captured.graph_module):
        weight, bias = (*node.args[1:3], None)[:2]
        given, read = (_row(channels.ids[n.name], by_id) for n in (node, _source(node)))
        yield _ScaledLayer(
            node.name,
            (weight, bias),
            given,
            given.reshape(-1, 1, 1, 1),
            _columns(node, read),
        )


def _columns(convolution: Node, read: Tensor) -> Tensor:
    """Factors of what a convolution reads in the shape of its weight; those of grouped ones are all 1."""
    if _groups(convolution) == 1:
        return read.reshape(1, -1, 1, 1)
    return read.reshape(-1, 1, 1, 1) if _is_depthwise(convolution) else torch.ones(1, 1, 1, 1).double()


def _row(ids: _Ids, by_id: Mapping[int, float]) -> Tensor:
    return torch.tensor([by_id.get(int(i), 1.0) for i in ids], dtype=torch.float64)


@torch.no_grad()
def _multiply(value: Tensor, factor: Tensor) -> None:
    value.copy_(value.double() * factor)
