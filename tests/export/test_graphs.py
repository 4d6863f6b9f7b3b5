"""What is inside the artifacts, and what the runtimes make of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest

from edgedet import registry
from edgedet.bundle import Bundle
from edgedet.executed import ExecutedGraph


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def executed(bundle: Bundle, runtime: str) -> ExecutedGraph:
    path = bundle.path_of(bundle.artifact(runtime, "int8"))
    with registry.RUNTIMES.load(runtime)(path, threads=1) as opened:
        graph: ExecutedGraph = opened.executed(runs=1)
    return graph


def test_onnx_runtime_executes_every_convolution_and_addition_in_integers(full_bundle: Bundle) -> None:
    exported = operators(full_bundle.path_of(full_bundle.artifact("ort", "int8")))
    graph = executed(full_bundle, "ort")
    types = Counter(operator.type for operator in graph.operators)
    assert exported["Conv"] > 40
    assert types["QLinearConv"] == exported["Conv"]
    assert types["QLinearAdd"] == exported["Add"]
    assert types["QuantizeLinear"] == 1  # of the input
    assert graph.float_chains == ()
    assert graph.integer_share == 1


def test_litert_executes_everything_in_integers_and_in_one_part_of_its_delegate(full_bundle: Bundle) -> None:
    graph = executed(full_bundle, "tflite")
    assert graph.float_chains == ()
    assert graph.integer_share == 1
    assert graph.partitions == 1
    assert all(operator.delegated for operator in graph.operators)


def test_openvino_computes_everything_in_integers_and_adds_residuals_in_its_convolutions(
    full_bundle: Bundle,
) -> None:
    graph = executed(full_bundle, "openvino")
    assert graph.float_chains == ()
    assert graph.integer_share == 1
    computing = [operator.type for operator in graph.operators if operator.role == "compute"]
    assert len(computing) > 60
    assert set(computing) <= {"Convolution", "GroupConvolution"}


def test_no_clip_is_left_between_a_convolution_and_its_quantization(full_bundle: Bundle) -> None:
    float_path = full_bundle.path_of(full_bundle.artifact("ort", "fp32"))
    int8_path = full_bundle.path_of(full_bundle.artifact("ort", "int8"))
    assert operators(float_path)["Clip"] > 20
    assert operators(int8_path)["Clip"] == 0


def test_biases_are_int32_for_the_cpu_runtimes_and_float_for_tensorrt(full_bundle: Bundle) -> None:
    def types_of_biases(path: Path) -> Counter[str]:
        graph = onnx.load(path).graph
        initializers = {tensor.name: tensor for tensor in graph.initializer}
        producers = {name: node for node in graph.node for name in node.output}
        found: Counter[str] = Counter()
        for node in graph.node:
            if node.op_type == "Conv":
                name = node.input[2]
                name = producers[name].input[0] if name in producers else name
                found[onnx.TensorProto.DataType.Name(initializers[name].data_type)] += 1
        return found

    artifacts = {(a.target, a.precision): a for a in full_bundle.manifest.artifacts}
    assert set(types_of_biases(full_bundle.path_of(artifacts["onnx", "int8"]))) == {"INT32"}
    tensorrt = full_bundle.root / "int8" / "model.trt.onnx"
    assert set(types_of_biases(tensorrt)) == {"FLOAT"}


def test_the_tensorrt_graph_quantizes_activations_to_int8_with_zero_point_0(full_bundle: Bundle) -> None:
    graph = onnx.load(full_bundle.root / "int8" / "model.trt.onnx").graph
    initializers = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    zero_points = [
        initializers[node.input[2]]
        for node in graph.node
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}
    ]
    assert zero_points
    assert all(zero_point.dtype == "int8" and not zero_point.any() for zero_point in zero_points)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_onnx_artifacts_pass_the_onnx_checker(full_bundle: Bundle, precision: str) -> None:
    for name in ("model.onnx", "model.trt.onnx"):
        onnx.checker.check_model(full_bundle.root / precision / name, full_check=True)


def test_tflite_computes_in_integers_between_float_boundaries(full_bundle: Bundle) -> None:
    from ai_edge_litert.interpreter import Interpreter

    path = full_bundle.path_of(full_bundle.artifact("tflite", "int8"))
    interpreter = Interpreter(str(path), experimental_preserve_all_tensors=False)
    operators = Counter(operator["op_name"] for operator in interpreter._get_ops_details())
    assert operators["QUANTIZE"] == 1  # of the input: no tensor is quantized anew on the way
    assert operators["DEQUANTIZE"] == 2  # of the two outputs
    signature = interpreter.get_signature_list()
    assert signature == {
        "serving_default": {"inputs": ["images"], "outputs": ["box_offsets", "class_logits"]}
    }
    assert {str(detail["dtype"]) for detail in interpreter.get_input_details()} == {"<class 'numpy.float32'>"}


def test_openvino_holds_its_weights_as_int8(full_bundle: Bundle) -> None:
    import openvino

    path = full_bundle.path_of(full_bundle.artifact("openvino", "int8"))
    model = openvino.Core().read_model(path)
    constants = [op for op in model.get_ops() if op.get_type_name() == "Constant"]
    integer = sum(
        op.get_output_size() and op.output(0).get_element_type().get_type_name() == "i8" for op in constants
    )
    assert integer > 40


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_openvino_adds_constant_biases(full_bundle: Bundle, precision: str) -> None:
    """Whoever quantizes the file with NNCF has its biases corrected, and loading computes no shapes."""
    import openvino

    path = full_bundle.path_of(full_bundle.artifact("openvino", precision))
    types: Counter[str] = Counter()
    biased = 0
    for node in openvino.Core().read_model(path).get_ops():
        types[node.get_type_name()] += 1
        if node.get_type_name() == "Add":
            added = [node.input_value(i).get_node() for i in (0, 1)]
            while (kind := added[1].get_type_name()) in {"Convert", "Multiply", "Reshape"}:
                added[1] = added[1].input_value(0).get_node()
            biased += kind == "Constant"
    assert biased == types["Convolution"] + types["GroupConvolution"] > 40
    assert types["ShapeOf"] == 0
