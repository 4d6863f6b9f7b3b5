"""Write the bias of a quantized convolution as int32, in the scale of its accumulator.

The integer kernels add the bias to an int32 sum whose scale is input scale x weight scale; writing it so
leaves nothing for the runtime to decide. TensorRT is the exception: it takes float biases only.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_WEIGHTED = {"Conv", "Gemm"}


def quantize_biases(model: ir.Model) -> int:
    """Replace every float bias between dequantized input and weight."""
    changed = 0
    for node in list(model.graph):
        if node.op_type not in _WEIGHTED or len(node.inputs) < 3 or node.inputs[2] is None:
            continue
        bias = node.inputs[2]
        scales = [_dequantization_scale(value) for value in node.inputs[:2]]
        if bias.const_value is None or scales[0] is None or scales[1] is None:
            continue
        scale = (scales[0].astype(np.float64) * scales[1]).astype(np.float32)
        values = np.rint(bias.const_value.numpy().astype(np.float64) / scale)
        if np.abs(values).max(initial=0) >= 2.0**31:  # refused when the graph was quantized
            raise ValueError(f"the bias of {node.name} does not fit into int32")
        integers = values.astype(np.int32)
        inputs = [
            _initializer(model, f"{node.name}_bias_{what}", array)
            for what, array in (
                ("int32", integers),
                ("scale", scale),
                ("zero_point", np.zeros_like(integers)),
            )
        ]
        axis = {"axis": 0} if scale.ndim else {}
        dequantization = ir.node(
            "DequantizeLinear", inputs, attributes=axis, name=f"{node.name}_bias_dequantize"
        )
        dequantization.outputs[0].name = f"{node.name}_bias"
        model.graph.insert_before(node, dequantization)
        node.replace_input_with(2, dequantization.outputs[0])
        changed += 1
    return changed


def _dequantization_scale(value: ir.Value | None) -> np.ndarray | None:
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type != "DequantizeLinear":
        return None
    scale = producer.inputs[1]
    return None if scale is None or scale.const_value is None else scale.const_value.numpy()


def _initializer(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
    )
    model.graph.register_initializer(value)
    return value
