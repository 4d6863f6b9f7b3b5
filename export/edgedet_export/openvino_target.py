"""OpenVINO IR, from the ONNX graph of the same encoding: its importer turns Q/DQ pairs into FakeQuantize."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir
import openvino as ov
from openvino._offline_transformations import apply_moc_transformations

from edgedet.spec import Precision
from edgedet_export.metadata import save_openvino
from edgedet_export.onnx_target import to_onnx
from edgedet_export.passes.drop_requantization import drop_requantization
from edgedet_export.passes.mark_residuals import mark_residuals
from edgedet_export.quiet import converter
from edgedet_export.target import Exported, Source

# "Reshape_11454": a type, also of what a constant was computed from, and a count. ONNX names begin otherwise.
_COUNTED = re.compile(r"[A-Z][A-Za-z0-9]*_\d+")


class OpenVinoTarget:
    """`model.xml` and `model.bin`: weights in float32, in float16, or int8 where quantized.

    OpenVINO's float16 is of the file: the device's plugin chooses what it computes in. On CPUs,
    tensors between operators are float32 here.
    """

    runtime: ClassVar[str] = "openvino"
    encodings: ClassVar[Mapping[Precision, str]] = {"int8": "openvino"}
    fold_weights: ClassVar[bool] = True
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "int8")

    def export(self, source: Source, folder: Path) -> Exported:
        """Write `model.xml` and `model.bin`."""
        path = folder / "model.xml"
        with tempfile.TemporaryDirectory() as temporary:
            onnx_path = Path(temporary) / "model.onnx"
            ir.save(to_onnx(source), onnx_path)
            if source.spec.quantization is not None:
                model = ir.load(onnx_path)  # a copy: targets share what was converted
                mark_residuals(model)
                drop_requantization(model)
                ir.save(model, onnx_path)
            with converter("OpenVINO"):
                # Not ov.convert_model, which notes its arguments in the model and reports its use over the
                # network. Of its transformations these make constants of biases and shapes: without them,
                # shapes are computed at each loading, and NNCF finds no biases in the file.
                converted = ov.Core().read_model(onnx_path)
                apply_moc_transformations(converted, cf=True, smart_reshape=False)
                _name_by_place(converted)
                save_openvino(converted, path, source.spec)
        return Exported((path, path.with_suffix(".bin")))


def _name_by_place(model: ov.Model) -> None:
    """Name what OpenVINO named, by a count of all that the process has made, after its place in the model.

    The same detector then gives the same file, whatever the process converted before.
    """
    for place, node in enumerate(model.get_ordered_ops()):
        if _COUNTED.fullmatch(node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}_at_{place}")
