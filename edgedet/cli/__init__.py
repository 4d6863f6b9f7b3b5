"""The command line: one file per command, and one place where errors become messages and exit codes.

Exit codes: 0 done; 1 a check failed; 2 bad usage or input; 3 a missing extra or device; 4 a fault of edgedet
or of a library under it; 130 interrupted; 141 the reader of standard output went away; 143 terminated.
Nothing here imports a framework at the top of a file, so that `edgedet --help` does not load one.
"""

from __future__ import annotations

import _weakrefset
import errno
import gc
import io
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
import weakref
from collections.abc import Sequence
from types import FrameType
from typing import Annotated

import typer

import edgedet
from edgedet.cli import (
    benchmark,
    demo,
    detect,
    doctor,
    evaluate,
    export,
    inspect,
    models,
    parity,
    recommend,
    sensitivity,
    train,
)
from edgedet.cli.extras import EXTRA_OF_PACKAGE
from edgedet.cli.output import print_error
from edgedet.errors import EdgedetError, InternalError, UsageError, UserError
from edgedet.registry import missing_extra

_BROKEN_PIPE = 141  # 128 + SIGPIPE, as shells report a process that wrote to a closed pipe

# `benchmarks/shared_cores.py` measures it: alone it costs nothing that stands out of the noise.
_SPINS = "3000"

# These come without the name of a file when it is open already.
_DISK_PROBLEMS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)

# What typer raises for a command line that it cannot parse. Some versions bring click with them and others
# import it, so the class is taken from one that typer exports.
_ParseError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="edgedet",
    help="Mobile detectors from PyTorch to device formats, with proof that they detect the same.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgedet {edgedet.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Mobile detectors from PyTorch to device formats, with proof that they detect the same."""


# In the order in which a reader of `--help` needs them.
for _command in (
    demo,
    models,
    train,
    export,
    sensitivity,
    detect,
    evaluate,
    parity,
    benchmark,
    recommend,
    inspect,
    doctor,
):
    app.command(_command.__name__.rpartition(".")[2])(_command.run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What follows `edgedet` on the command line; `sys.argv` when not given.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    _share_cores()
    _print_anything()
    debug = bool(os.environ.get("EDGEDET_DEBUG"))
    if not debug:
        # Warnings of the frameworks: a user of the command line cannot act on them.
        warnings.simplefilter("ignore")
        logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    received = _end_on_signals()
    try:
        code = app(words or ["--help"], prog_name="edgedet", standalone_mode=False)
        sys.stdout.flush()
    except (SystemExit, BrokenPipeError):  # typer and rich turn a closed pipe into SystemExit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _BROKEN_PIPE
    except _Terminated:
        return _ended_by(signal.SIGTERM)
    except (KeyboardInterrupt, typer.Abort):
        return _ended_by(signal.SIGINT)
    except Exception as exc:
        if received:  # a library made its own exception of ours
            return _ended_by(received[-1])
        if debug:
            traceback.print_exc()
        error = _explained(exc)
        print_error(error)
        return error.exit_code
    if code == 128 + signal.SIGINT:  # some versions of typer return what others raise
        return _ended_by(signal.SIGINT)
    return code or 0


def _share_cores() -> None:
    """Let PyTorch's threads sleep while they wait, after some microseconds, unless the user has set how.

    GNU OpenMP reads the count when it is loaded, with PyTorch. By default they wait busily, for many
    milliseconds wherever another process has one of the cores.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def _print_anything() -> None:
    """Let terminals of other encodings show what they cannot as its number, where they would fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Terminated(BaseException):
    """SIGTERM, as an exception: what is half made is removed on the way out, as when Ctrl-C is pressed."""


def _ended_by(number: int) -> int:
    """Say so, and the exit code that shells give a process that a signal ended."""
    print(f"edgedet: {'interrupted' if number == signal.SIGINT else 'terminated'}", file=sys.stderr)
    return 128 + number


def _end_on_signals() -> list[int]:
    """Raise an exception on SIGINT and SIGTERM, a moment later where Python would drop it.

    Returns:
        The signals that came, once they did.
    """
    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if hasattr(signal, "setitimer") and _swallows(frame):
            signal.signal(signal.SIGALRM, lambda _, later: end(number, later))
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            return
        raise KeyboardInterrupt if number == signal.SIGINT else _Terminated

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if (
                signal.getsignal(number) is not signal.SIG_IGN
            ):  # as a shell sets it for jobs in the background
                signal.signal(number, end)
    return received


def _swallows(frame: FrameType | None) -> bool:
    """Whether Python drops exceptions here: in finalizers and the callbacks of weak references and gc."""
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    files = {weakref.__file__, _weakrefset.__file__}
    while frame is not None:
        code = frame.f_code
        if code in callbacks or code.co_name == "__del__" or code.co_filename in files:
            return True
        frame = frame.f_back
    return False


def _explained(exc: Exception) -> EdgedetError:
    """The error of our tree that an exception amounts to."""
    if isinstance(exc, EdgedetError):
        return exc
    if isinstance(exc, _ParseError):
        return _usage_error(exc)
    if isinstance(exc, ModuleNotFoundError):
        package = (exc.name or "").partition(".")[0]
        if package in EXTRA_OF_PACKAGE:
            return missing_extra("this command", exc, EXTRA_OF_PACKAGE[package])
    if isinstance(exc, OSError) and (exc.filename is not None or exc.errno in _DISK_PROBLEMS):
        return UserError(
            f"cannot use {exc.filename or 'the disk'}",
            got=exc.strerror or type(exc).__name__,
            expected="a path that this command can read or write",
            fix="check the path, its permissions and the space on the disk",
        )
    return InternalError(
        "this is a bug of edgedet, or of a library under it",
        got=f"{type(exc).__name__}: {str(exc).strip()[:300]}",
        expected="no exception of this kind to reach the command line",
        fix="run the command again with EDGEDET_DEBUG=1 set, and report the traceback that it prints",
    )


def _usage_error(exc: Exception) -> UsageError:
    """Typer's message, and where the legal options are listed."""
    message = exc.format_message() if hasattr(exc, "format_message") else str(exc)
    context = getattr(exc, "ctx", None)
    command = context.command_path if context is not None else "edgedet"
    return UsageError(
        "cannot read the command line",
        got=message[:1].lower() + message[1:].strip().rstrip("."),
        expected=f"arguments as `{command} --help` lists them",
        fix=f"see `{command} --help`",
    )
