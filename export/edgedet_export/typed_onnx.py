"""The strongly typed ONNX that both TensorRT targets build from: written, and judged by NVIDIA's own parser.

The parser is that of TensorRT for RTX, which reads graphs on any machine. It has the classes and operators of
TensorRT's own; what it says nowhere is in `typed_graph`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from edgedet.errors import MissingError, VerificationError
from edgedet.spec import DetectorSpec
from edgedet_export.metadata import embed_onnx
from edgedet_export.onnx_target import dtype_of, to_onnx
from edgedet_export.target import Source
from edgedet_export.trt_engine import TENSORRT_RTX, Parsed, parse
from edgedet_export.typed_graph import typed_problems

# So many places of a fault are named.
_MOST = 3


def write_typed(source: Source, path: Path) -> str:
    """Write the ONNX of a source, with the spec inside, and judge it.

    Returns:
        As `judge`.

    Raises:
        VendorError: The exporter does not know an operator.
        VerificationError: As `judge`.
    """
    ir.save(to_onnx(source, dtype_of(source)), path)
    embed_onnx(path, source.spec)
    return judge(path, source.spec)


def judge(path: Path, spec: DetectorSpec) -> str:
    """Refuse a graph that TensorRT would not take, or would compute otherwise than it says.

    Returns:
        Who judged it, or why NVIDIA's parser did not.

    Raises:
        VerificationError: The message has the parser's sentences and ours.
    """
    keeps_float = spec.quantization is not None and bool(spec.quantization.float_layers)
    ours = typed_problems(ir.load(path), keeps_float=keeps_float)
    try:
        parsed = parse(path, TENSORRT_RTX)
    except MissingError as missing:
        _refuse(path, spec, ours, ())
        return f"NVIDIA's parser did not judge it: {missing.got or missing.summary}"
    _refuse(path, spec, [*ours, *map(_lacking, parsed.lacking)], _said(parsed, bool(ours)))
    return f"the parser of {TENSORRT_RTX.title} {parsed.trt.__version__} accepted it"


def _said(parsed: Parsed, is_refused: bool) -> tuple[str, ...]:
    """The parser's reasons; its warnings too where the graph is refused anyway."""
    warnings = dict.fromkeys(parsed.log.warnings) if is_refused or parsed.reasons else ()
    return tuple(f"NVIDIA's parser: {sentence}" for sentence in (*parsed.reasons, *warnings))


def _lacking(operator: str) -> str:
    return f"{operator} is an operator that the parser lacks"


def _refuse(path: Path, spec: DetectorSpec, ours: Sequence[str], theirs: Sequence[str]) -> None:
    if not ours and not theirs:
        return
    more = [f"and {len(ours) - _MOST} more"] if len(ours) > _MOST else []
    raise VerificationError(
        f"{spec.precision}/{path.name} is not a graph for TensorRT",
        got="; ".join((*ours[:_MOST], *more, *theirs)),
        expected="operators that its parser has, in float32, float16, or int8 with constant scales, zero "
        "point 0, and one scale for an activation",
        fix="leave this target out with --to, and report it with the versions that `edgedet doctor` prints",
    )
