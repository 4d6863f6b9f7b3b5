"""TFLite through litert-torch.

In INT8 the converter makes input and output integers as well; `tflite_boundary` puts the conversion back into
the model, so that every artifact has the same float signature and the quantization runs in the runtime's
vectorised kernels.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import litert_torch
from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
from litert_torch.quantize.quant_config import QuantConfig

from edgedet.files import write_atomically
from edgedet.spec import Precision
from edgedet_export.metadata import embed_tflite
from edgedet_export.quiet import converter
from edgedet_export.target import Exported, Source
from edgedet_export.tflite_boundary import name_signature, with_float_boundary


class TfliteTarget:
    """A flatbuffer with signed affine activations and int8 weights for each channel where it is INT8."""

    runtime: ClassVar[str] = "tflite"
    encoding: ClassVar[str] = "tflite"
    fold_weights: ClassVar[bool] = False
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "int8")

    def export(self, source: Source, folder: Path) -> Exported:
        """Write `model.tflite`."""
        path = folder / "model.tflite"
        with converter("litert-torch"):
            config = None if source.spec.quantization is None else _static_quantization()
            edge_model = litert_torch.convert(source.graph_module, source.example_inputs, quant_config=config)
            edge_model.export(str(path))
        model = name_signature(with_float_boundary(path.read_bytes()), source.spec)
        write_atomically(path, model)
        embed_tflite(path, source.spec)
        return Exported((path,))


def _static_quantization() -> QuantConfig:
    """Tells the converter that the graph holds static quantizers; it reads nothing else from it."""
    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False)
    return QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(config))
