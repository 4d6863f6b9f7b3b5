"""TFLite through litert-torch.

Where it is calibrated the converter makes input and output integers as well; `tflite_boundary` puts the
conversion back into the model, so that every artifact has the same float signature and the quantization runs
in the runtime's vectorised kernels.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar
from weakref import WeakKeyDictionary

import litert_torch
import torch
from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
from litert_torch.quantize.quant_config import QuantConfig
from torch.fx import GraphModule

from edgedet.files import write_atomically
from edgedet.spec import Precision
from edgedet_export.metadata import embed_tflite
from edgedet_export.quiet import converter
from edgedet_export.target import Exported, Source
from edgedet_export.tflite_16x8 import cut, join, widen_biases
from edgedet_export.tflite_boundary import name_signature, with_float_boundary
from edgedet_export.tflite_recipes import dynamic_int8, float16_weights

# The float model takes long to convert and is what fp32, fp16 and int8-dynamic are made from.
_CONVERTED: WeakKeyDictionary[GraphModule, bytes] = WeakKeyDictionary()

_RECIPES = {"fp16": float16_weights, "int8-dynamic": dynamic_int8}


class TfliteTarget:
    """A flatbuffer with int8 weights for each channel where it is not float.

    Activations are signed and affine in int8, int16 with zero point 0 in int8-a16, and float otherwise; in
    fp16 the weights alone are float16.
    """

    runtime: ClassVar[str] = "tflite"
    encodings: ClassVar[Mapping[Precision, str]] = {"int8": "tflite", "int8-a16": "tflite-16x8"}
    fold_weights: ClassVar[bool] = False
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "int8", "int8-a16", "int8-dynamic")

    def export(self, source: Source, folder: Path) -> Exported:
        """Write `model.tflite`."""
        path = folder / "model.tflite"
        precision = source.spec.precision
        if precision in self.encodings:
            content = (
                _sixteen_bits(source) if precision == "int8-a16" else _quantized(source.graph_module, source)
            )
            content = with_float_boundary(content)
        else:
            content = _float(source)
        model = name_signature(content, source.spec)
        if precision in _RECIPES:
            with converter("ai-edge-quantizer"):
                model = _RECIPES[precision](model)
        write_atomically(path, model)
        embed_tflite(path, source.spec)
        return Exported((path,))


def _float(source: Source) -> bytes:
    if source.graph_module not in _CONVERTED:
        _CONVERTED[source.graph_module] = _convert(source.graph_module, source, None)
    return _CONVERTED[source.graph_module]


def _quantized(graph_module: GraphModule, source: Source) -> bytes:
    """The converter only has to know that the graph holds static quantizers."""
    static = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False)
    return _convert(graph_module, source, QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(static)))


def _sixteen_bits(source: Source) -> bytes:
    graph_module, joints = cut(source.graph_module)
    return widen_biases(join(_quantized(graph_module, source), joints))


def _convert(graph_module: GraphModule, source: Source, config: QuantConfig | None) -> bytes:
    with converter("litert-torch"):
        (images,) = source.example_inputs
        channels_last = (images.permute(0, 2, 3, 1),)
        edge_model = litert_torch.convert(
            _reads_channels_last(graph_module), channels_last, quant_config=config
        )
        return bytes(edge_model.model_content())


def _reads_channels_last(graph_module: GraphModule) -> GraphModule:
    """A graph with the same weights whose image is (batch, height, width, channels).

    The permutation is a node of the graph itself: a module around the graph, as litert-torch's own wrapper
    is, would be all that the names of the operators tell.
    """
    graph = copy.deepcopy(graph_module.graph)
    (image,) = graph.find_nodes(op="placeholder")
    with graph.inserting_after(image):
        planes = graph.call_function(torch.ops.aten.permute.default, (image, [0, 3, 1, 2]))
    image.replace_all_uses_with(planes, delete_user_cb=lambda user: user is not planes)
    return GraphModule(graph_module, graph)
