"""What a bundle says of an artifact that could not be built, or not be run, where it was exported."""

from __future__ import annotations

from edgedet.errors import MissingDeviceError, MissingError
from edgedet_export.target import Exported
from edgedet_export.verify import Verified

_STOOD_IN = "ONNX Runtime ran its ONNX"


def note_of(exported: Exported, verified: Verified) -> str:
    """The artifact's note: no command of the machine that exported it, for a bundle goes to others."""
    parts = [exported.note] if exported.note else []
    if exported.missing is not None:
        parts = [
            f"engine not built here: {exported.missing.got or exported.missing.summary}",
            _STOOD_IN,
            *parts,
        ]
    elif verified.lacks is not None:
        parts = [f"built, not run: {_lack(verified.lacks)}", _STOOD_IN, *parts]
    return "; ".join(parts)


def _lack(missing: MissingError) -> str:
    return missing.summary if isinstance(missing, MissingDeviceError) else missing.got or missing.summary
