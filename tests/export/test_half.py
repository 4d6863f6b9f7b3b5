"""fp16: what is float16 in each artifact, what stays float32, and what float16 cannot hold."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import onnx
import pytest
import torch

from edgedet import registry
from edgedet.bundle import Bundle
from edgedet.data import open_dataset
from edgedet.errors import CheckpointError
from edgedet.parity.compare import OutputComparison
from edgedet.preprocess import preprocess
from edgedet_export.half import LARGEST, Halved, check_fits_half

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


@pytest.mark.parametrize("name", ["model.onnx", "model.trt.onnx", "model.rtx.onnx"])
def test_onnx_is_float16_between_float32_inputs_and_outputs(full_bundle: Bundle, name: str) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load(full_bundle.root / "fp16" / name), strict_mode=True)
    graph = model.graph
    assert {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)} == {FLOAT}
    assert FLOAT not in {tensor.data_type for tensor in graph.initializer}
    assert HALF in {tensor.data_type for tensor in graph.initializer}
    inner = {v.name: v.type.tensor_type.elem_type for v in graph.value_info}
    assert FLOAT not in inner.values()
    casts = [node for node in graph.node if node.op_type == "Cast"]
    assert Counter(node.attribute[0].i for node in casts) == {HALF: 1, FLOAT: 2}


def test_openvino_holds_its_weights_as_float16_and_passes_float32_between_operators(
    full_bundle: Bundle,
) -> None:
    import openvino

    path = full_bundle.path_of(full_bundle.artifact("openvino", "fp16"))
    model = openvino.Core().read_model(path)
    weights = [op for op in model.get_ops() if op.get_type_name() == "Constant" and len(op.shape) == 4]
    assert len(weights) > 40
    assert {op.get_element_type().get_type_name() for op in weights} == {"f16"}
    assert {v.get_element_type().get_type_name() for v in (*model.inputs, *model.outputs)} == {"f32"}
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    executed = {
        op.get_output_element_type(0).get_type_name()
        for op in compiled.get_runtime_model().get_ops()
        if op.get_rt_info()["layerType"].astype(str) == "Convolution"
    }
    assert executed == {"f32"}


def test_tflite_holds_its_weights_as_float16_behind_a_dequantization(full_bundle: Bundle) -> None:
    from ai_edge_litert.interpreter import Interpreter

    path = full_bundle.path_of(full_bundle.artifact("tflite", "fp16"))
    interpreter = Interpreter(str(path))
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    sources: Counter[str] = Counter()
    made_by = {
        output: operator for operator in interpreter._get_ops_details() for output in operator["outputs"]
    }
    for operator in interpreter._get_ops_details():
        if operator["op_name"] in {"CONV_2D", "DEPTHWISE_CONV_2D"}:
            dequantization = made_by[operator["inputs"][1]]
            assert dequantization["op_name"] == "DEQUANTIZE"
            sources[np.dtype(details[dequantization["inputs"][0]]["dtype"]).name] += 1
    assert set(sources) == {"float16"}
    assert sources["float16"] > 40
    ends = (*interpreter.get_input_details(), *interpreter.get_output_details())
    assert {np.dtype(detail["dtype"]).name for detail in ends} == {"float32"}


@pytest.mark.parametrize("runtime", ["openvino", "ort", "tflite"])
def test_outputs_are_rounded_and_yet_within_40_db_of_float(full_bundle: Bundle, runtime: str) -> None:
    comparison = OutputComparison([output.name for output in full_bundle.spec.outputs])
    image = next(iter(open_dataset("builtin", split="test"))).image_bgr
    feeds = {"images": preprocess(image, full_bundle.spec.input)[0]}
    opened = [
        registry.RUNTIMES.load(name)(full_bundle.path_of(full_bundle.artifact(name, precision)), threads=1)
        for name, precision in (("eager", "fp32"), (runtime, "fp16"))
    ]
    comparison.add(*(one.run(feeds) for one in opened))
    for one in opened:
        one.close()
    for output in comparison.differences():
        assert 40 < output.snr_db < 80, "above 80 dB nothing was rounded to float16"


class Scaled(torch.nn.Module):
    """A convolution whose sums reach what its weight says."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 2, 1)
        with torch.no_grad():
            self.convolution.weight.fill_(weight)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.convolution(images) * 0.5,)


def captured(weight: float) -> torch.fx.GraphModule:
    return torch.export.export(Scaled(weight).eval(), (torch.ones(1, 3, 4, 4),)).module()  # type: ignore[return-value]


def test_what_float16_does_not_hold_is_refused_where_it_arises() -> None:
    ones = np.ones((1, 3, 4, 4), np.float32)
    check_fits_half(captured(LARGEST / 4), [ones])
    with pytest.raises(CheckpointError, match=r"values up to 9.83e\+04 in conv2d"):
        check_fits_half(captured(LARGEST / 2), [ones])
    with pytest.raises(CheckpointError, match="weight"):
        check_fits_half(captured(LARGEST * 8), [0 * ones])


def test_halving_leaves_the_graph_that_it_copies() -> None:
    graph_module = captured(0.1)
    before = copy.deepcopy(graph_module.state_dict())
    (output,) = Halved(graph_module)(torch.ones(1, 3, 4, 4))
    assert output.dtype == torch.float32
    for name, tensor in graph_module.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, before[name]), name
