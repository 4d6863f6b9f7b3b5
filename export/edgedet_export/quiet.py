"""Converters write to the process's own output; here it is kept, and shown only when they fail."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from edgedet.errors import EdgedetError, VendorError


@contextmanager
def converter(name: str) -> Iterator[None]:
    """Run a vendor's converter silently and translate its exceptions.

    Raises:
        VendorError: The converter raised; the message ends with the last line that it printed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    previous = logging.root.manager.disable
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        logging.disable(logging.CRITICAL)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except EdgedetError:
            raise
        except Exception as exc:
            log.seek(0)
            printed = log.read().decode(errors="replace").strip().splitlines()
            raise VendorError(
                f"{name} could not convert the detector",
                got=f"{type(exc).__name__}: {str(exc).strip()[:400]}"
                + (f" ({printed[-1]})" if printed else ""),
                expected="operators that the converter knows",
                fix="leave this target out with --to, or take a backbone that `edgedet models` lists",
            ) from exc
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, descriptor)
                os.close(copy)
            logging.disable(previous)
