"""Weights of a float TFLite model in fewer bits, by ai-edge-quantizer; inputs and outputs stay float32."""

from __future__ import annotations

from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe_manager

_ALL = qtyping.TFLOperationName.ALL_SUPPORTED


def float16_weights(content: bytes) -> bytes:
    """Weights in float16, each behind a DEQUANTIZE that runtimes fold away when they open the model."""
    recipe = recipe_manager.RecipeManager()
    recipe.add_quantization_config(
        regex=".*",
        operation_name=_ALL,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(
                num_bits=16, dtype=qtyping.TensorDataType.FLOAT
            ),
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
        algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
    )
    return _quantized(content, recipe)


def dynamic_int8(content: bytes) -> bytes:
    """Weights in int8 for each channel; inputs of convolutions are rounded to int8 as they come.

    Depthwise convolutions keep float inputs and their weights stand behind a DEQUANTIZE: XNNPACK has no
    dynamic kernel of them, and the interpreter's own rounds with one scale for all channels. On the blood
    cells that took the graph apart into 21 delegates and cost 4.5 dB of the box offsets.
    """
    recipe = recipe_manager.RecipeManager()
    recipe.add_dynamic_config(regex=".*", operation_name=_ALL, num_bits=8)
    depthwise = qtyping.TFLOperationName.DEPTHWISE_CONV_2D
    recipe.add_weight_only_config(regex=".*", operation_name=depthwise, num_bits=8)
    return _quantized(content, recipe)


def _quantized(content: bytes, recipe: recipe_manager.RecipeManager) -> bytes:
    job = quantizer.Quantizer(bytearray(content), recipe.get_quantization_recipe())
    return bytes(job.quantize().quantized_model)
