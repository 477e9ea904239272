"""Standard output and error, whatever they are: closed, full, absent, or of ASCII alone."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from rasterwise.command_line.statuses import FAILED, INTERRUPTED


class OutputError(OSError):
    """Standard output cannot be written."""


class _Output(io.FileIO):
    """Standard output, whose errors are told from those of other files."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from None


def prepare_streams() -> None:
    """Have all three standard streams, and no character that one of them cannot show end the process."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _occupy(number)
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Output(sys.stdout.fileno(), "w", closefd=False)),
            encoding=sys.stdout.encoding,
            errors="backslashreplace",
            line_buffering=sys.stdout.line_buffering,
        )


def _occupy(number: int) -> None:
    """Point a descriptor that is free to nothing: else the next file that is opened gets it, and what is printed."""
    try:
        os.fstat(number)
    except OSError:
        nothing = os.open(os.devnull, os.O_RDWR)
        if nothing != number:
            os.dup2(nothing, number)
            os.close(nothing)


def show(text: str) -> int:
    """Print on standard output; returns the exit status that follows from it.

    A reader that has gone, such as ``head``, has what it wanted. Where there is no room, a line says so.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        return _without_output(error)
    return 0


def guarded(work: Callable[[], int]) -> int:
    """Do a command's work; a standard output that fails, and Ctrl-C, end it without a traceback.

    Args:
        work: Returns the exit status.
    """
    with _noted_interruptions() as interruptions:
        try:
            try:
                status = work()
            finally:  # tyro ends with SystemExit once it has shown its help
                sys.stdout.flush()
        except OutputError as error:
            return _without_output(error)
        except (Exception, KeyboardInterrupt) as error:
            # A library that is interrupted while it is imported may fail in its own way.
            if not (interruptions or isinstance(error, KeyboardInterrupt)):
                raise
            with contextlib.suppress(OSError):
                print("rasterwise: interrupted", file=sys.stderr)
            return INTERRUPTED
    return status


@contextlib.contextmanager
def _noted_interruptions() -> Iterator[list[int]]:
    """The SIGINTs that come from now on; each raises KeyboardInterrupt, as ever."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, say
        yield noted
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _without_output(error: OSError) -> int:
    with contextlib.suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())  # the interpreter flushes it once more at its end
        os.close(nothing)
    if error.errno == errno.EPIPE:
        return 0
    with contextlib.suppress(OSError):
        print(f"rasterwise: standard output cannot be written ({error.strerror})", file=sys.stderr)
    return FAILED
