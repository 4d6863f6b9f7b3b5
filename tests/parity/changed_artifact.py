"""A bundle with one artifact changed, and its hash in the manifest with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgedet.bundle import MANIFEST, Bundle, FileEntry, open_bundle


def with_changed_artifact(
    bundle: Bundle, folder: Path, runtime: str, precision: str, change: Callable[[Path], None]
) -> Bundle:
    """A copy of the bundle in `folder`, in which `change` has rewritten the file that the runtime opens."""
    shutil.copytree(bundle.root, folder)
    artifact = bundle.artifact(runtime, precision)
    path = folder / artifact.files[0].path
    change(path)
    files = (FileEntry.of(folder, path), *artifact.files[1:])
    artifacts = tuple(
        a.model_copy(update={"files": files}) if a is artifact else a for a in bundle.manifest.artifacts
    )
    manifest = bundle.manifest.model_copy(update={"artifacts": artifacts})
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return open_bundle(folder)


def double_weight_scale(path: Path) -> None:
    """Double the scale of the weights of the twenty-first convolution of an INT8 .onnx file."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    graph = model.graph
    node = [node for node in graph.node if node.op_type == "Conv"][20]
    constants = {tensor.name: tensor for tensor in graph.initializer}
    (dequantization,) = (one for one in graph.node if one.output[0] == node.input[1])
    scale = constants[dequantization.input[1]]
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(2), scale.name))
    onnx.save(model, path)


def zero_bias(path: Path) -> None:
    """Make the bias of the eleventh convolution of a .tflite file zeros."""
    from ai_edge_litert import schema_py_generated as schema

    from edgedet_export.tflite_boundary import pack, unpack

    model = unpack(path.read_bytes())
    graph = model.subgraphs[0]
    codes = [code.builtinCode for code in model.operatorCodes]
    convolutions = {schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D}
    operator = [one for one in graph.operators if codes[one.opcodeIndex] in convolutions][10]
    buffer = model.buffers[graph.tensors[operator.inputs[2]].buffer]
    buffer.data = np.zeros_like(np.asarray(buffer.data))
    path.write_bytes(pack(model))
