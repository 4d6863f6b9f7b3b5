"""The exceptions of edgedet, one tree with one root.

::

    EdgedetError                   exit code
    ├── UserError                  2   the caller can mend it
    │   ├── UsageError                 a name or an option that does not exist
    │   ├── ConfigError                a TOML file that does not say what it must
    │   ├── DataError                  images, annotations, data set folders
    │   ├── CheckpointError            weights that do not fit the detector
    │   ├── BundleError                a bundle or an artifact that cannot be trusted or read
    │   └── TensorError                a feed whose name, shape or dtype a runtime cannot take
    ├── CheckError                 1   a check ran and failed
    │   └── VerificationError          an artifact that differs from what it was exported from
    ├── MissingError               3   this machine lacks something
    │   ├── MissingExtraError          a Python package; names its `pip install`
    │   └── MissingDeviceError         a device, a driver or a native library
    └── InternalError              4   our fault, or a vendor's; report it
        ├── VendorError                an exception of a runtime or converter, translated
        └── TrainingError              a loss that is not finite, a lost worker

Every message says what was got, what was expected and how to fix it.
"""

from __future__ import annotations

from typing import ClassVar


class EdgedetError(Exception):
    """Root of the tree: a message in three parts and the exit code of a command that ends with it.

    Args:
        summary: One sentence without a full stop: what cannot be done.
        got: What was found.
        expected: What would have been right, with the legal values listed.
        fix: What the reader should do or type next.
    """

    exit_code: ClassVar[int] = 4

    def __init__(self, summary: str, *, got: str = "", expected: str = "", fix: str = "") -> None:
        self.summary, self.got, self.expected, self.fix = summary, got, expected, fix
        parts = [summary]
        parts += [f"{word} {text}" for word, text in (("got", got), ("expected", expected)) if text]
        super().__init__("; ".join(parts) + (f". Fix: {fix}" if fix else ""))


class UserError(EdgedetError):
    """Something the caller gave cannot be used."""

    exit_code = 2


class UsageError(UserError):
    """A name, option or combination of options that does not exist."""


class ConfigError(UserError):
    """A configuration file that cannot be read or does not validate."""


class DataError(UserError):
    """An image, an annotation file or a data set folder that cannot be used."""


class CheckpointError(UserError):
    """Weights that cannot be read or do not fit the detector."""


class BundleError(UserError):
    """A bundle or a lone artifact that is missing, damaged or not trusted."""


class TensorError(UserError):
    """A tensor whose name, shape or dtype is not what a runtime takes."""


class CheckError(EdgedetError):
    """A check ran and failed."""

    exit_code = 1


class VerificationError(CheckError):
    """An exported artifact that does not give the outputs of its source."""


class MissingError(EdgedetError):
    """This machine lacks what the call needs."""

    exit_code = 3


class MissingExtraError(MissingError):
    """A Python package is not installed."""


class MissingDeviceError(MissingError):
    """A device, a driver or a native library is not there."""


class InternalError(EdgedetError):
    """A fault of edgedet or of a library under it."""


class VendorError(InternalError):
    """An exception of a runtime or a converter, translated once."""


class TrainingError(InternalError):
    """Training cannot go on."""
