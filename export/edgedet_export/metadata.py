"""Put a detector's spec into its artifacts, where `edgedet.embedded` says that the runtimes look.

Files are replaced atomically, and embedding again replaces the former spec.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgedet.embedded import RT_INFO_PATH, RT_INFO_WEIGHTS, SPEC_KEY, bound_spec, plan_sidecar
from edgedet.errors import BundleError, VendorError
from edgedet.files import sha256_of, write_atomically
from edgedet.spec import DetectorSpec


def embed_onnx(path: Path, spec: DetectorSpec) -> None:
    """Write the spec into `metadata_props` of an .onnx file.

    Raises:
        BundleError: The file is not an ONNX model.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except Exception as exc:  # protobuf's DecodeError, from whichever of its implementations is in use
        raise _unreadable(path, "an ONNX model", exc) from exc
    if not model.HasField("graph"):
        raise _unreadable(path, "an ONNX model")
    kept = [entry for entry in model.metadata_props if entry.key != SPEC_KEY]
    kept.append(onnx.StringStringEntryProto(key=SPEC_KEY, value=spec.to_json()))
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    write_atomically(path, model.SerializeToString())


def save_openvino(model: Any, path: Path, spec: DetectorSpec) -> None:
    """Write an `openvino.Model` as .xml and .bin, with the spec and the sha256 of the .bin in its `rt_info`.

    The .xml points into the .bin by offsets alone, and would read those of another detector.
    """
    import openvino

    compresses = spec.precision == "fp16"
    model.set_rt_info(spec.to_json(), list(RT_INFO_PATH))
    openvino.save_model(model, path, compress_to_fp16=compresses)
    weights = path.with_suffix(".bin")
    digest = sha256_of(weights)
    model.set_rt_info(digest, list(RT_INFO_WEIGHTS))
    openvino.save_model(model, path, compress_to_fp16=compresses)
    if sha256_of(weights) != digest:
        raise VendorError(
            f"OpenVINO wrote {weights.name} twice, and not the same",
            got="another sha256",
            expected="equal files of one model",
            fix="report it with the versions that `edgedet doctor` prints",
        )


def embed_tflite(path: Path, spec: DetectorSpec) -> None:
    """Write the spec into the metadata of a .tflite file.

    Raises:
        BundleError: The file is not a TFLite model.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    data = path.read_bytes()
    if not schema.Model.ModelBufferHasIdentifier(data, 0):
        raise _unreadable(path, "a TFLite model")
    try:
        model = flatbuffer_utils.read_model_from_bytearray(data)
    except Exception as exc:  # the generated reader raises whatever a bad offset leads to
        raise _unreadable(path, "a TFLite model", exc) from exc
    content = list(spec.to_json().encode())
    entry = next((item for item in model.metadata or [] if item.name == SPEC_KEY.encode()), None)
    if entry is None:
        entry = schema.MetadataT(name=SPEC_KEY, buffer=len(model.buffers))
        model.buffers.append(schema.BufferT())
        model.metadata = [*(model.metadata or []), entry]
    model.buffers[entry.buffer].data = content
    write_atomically(path, bytes(flatbuffer_utils.convert_object_to_bytearray(model)))


def embed_tensorrt(path: Path, spec: DetectorSpec) -> Path:
    """Write the spec beside a TensorRT plan, bound to it by its sha256; returns the file that was written."""
    sidecar = plan_sidecar(path)
    write_atomically(sidecar, bound_spec(path, spec.to_json()))
    return sidecar


def _unreadable(path: Path, expected: str, exc: Exception | None = None) -> BundleError:
    reason = f": {type(exc).__name__}: {str(exc)[:200]}" if exc else ""
    return BundleError(
        f"cannot write the detector spec into {path}",
        got=f"{path.stat().st_size} bytes that do not read as one{reason}",
        expected=expected,
        fix="export the detector again",
    )
