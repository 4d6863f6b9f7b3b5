"""Write the mean over rows and columns as a global average pooling, which has an integer kernel.

Both compute the same. Between a dequantization and a quantization `ReduceMean` stays float in ONNX Runtime,
while `GlobalAveragePool` becomes `QLinearGlobalAveragePool`.
"""

from __future__ import annotations

import onnx_ir as ir


def pool_means(model: ir.Model) -> int:
    """Replace every ReduceMean over the last two of four dimensions that keeps them; returns how many."""
    replaced = 0
    for node in list(model.graph):
        if node.op_type != "ReduceMean" or not _is_over_the_image(node):
            continue
        (output,) = node.outputs
        pool = ir.node("GlobalAveragePool", inputs=[node.inputs[0]], name=node.name)
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], [pool], [output], pool.outputs)
        replaced += 1
    return replaced


def _is_over_the_image(node: ir.Node) -> bool:
    source, axes = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    if source is None or source.shape is None or len(source.shape) != 4 or axes is None:
        return False
    keeps = node.attributes.get_int("keepdims", 1)
    constant = axes.const_value
    return keeps == 1 and constant is not None and sorted(a % 4 for a in constant.numpy().tolist()) == [2, 3]
