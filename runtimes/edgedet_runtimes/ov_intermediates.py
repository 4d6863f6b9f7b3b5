"""The integer tensors of an OpenVINO model: what its FakeQuantize operators give.

One that is named as a mark, between a convolution and the addition of a residual, is not executed: it tells
the CPU plugin to add inside the convolution. Where sums are read from outside, the plugin would execute it
after all, and so it is taken out here: sums are then computed beside the convolutions, of the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import openvino

from edgedet.boxes import Floats
from edgedet.intermediate import RESIDUAL_MARK, Intermediate

# What a quantization is followed by up to where its values are read.
_DEQUANTIZES = {"Convert", "Multiply", "Subtract"}


def quantizers_without_marks(model: openvino.Model) -> list[openvino.Node]:
    """The quantizers of activations, in the order of the model, after those that are marks were removed."""
    found = []
    for node in model.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        source = node.input_value(0)
        if RESIDUAL_MARK in node.get_friendly_name():
            for reader in list(_readers(node)):
                reader.replace_source_output(source)
        elif source.get_node().get_type_name() != "Constant":
            found.append(node)
    return found


def _readers(node: openvino.Node) -> Iterator[openvino.Input]:
    """Where the values of a quantizer go, behind their dequantization."""
    for reader in node.output(0).get_target_inputs():
        if reader.get_node().get_type_name() in _DEQUANTIZES:
            yield from _readers(reader.get_node())
        else:
            yield reader


def intermediate(node: openvino.Node, values: Floats) -> Intermediate:
    """What a FakeQuantize of one range gives, as steps of the range that it takes.

    Raises:
        ValueError: It has a range for each channel.
    """
    limits = (float(node.input_value(i).get_node().data.item()) for i in range(1, 5))
    low, high, out_low, out_high = limits
    steps = node.get_attributes()["levels"] - 1
    scale = (high - low) / steps
    integers = np.rint((values - np.float32(out_low)) * np.float32(steps / (out_high - out_low)))
    return Intermediate(integers.astype(np.int32), float(np.float32(scale)), round(-low / scale))
