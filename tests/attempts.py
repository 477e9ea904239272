"""Commands in forked processes, which are killed after some time, or before one of the operations that change files."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pipeline.cli import main as rasterwise

LONGEST_S = 1200.0

OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "fcntl.lockf", "ctypes.dlsym")
"""Python's audit events of what changes files. Two names are exchanged by ``renameat2``, through ctypes."""


@dataclass(frozen=True)
class Attempt:
    """One process.

    Attributes:
        status: Its exit status, or minus the signal that killed it.
        operations: Those on files that it began.
        seconds: How long it took.
        log: What it printed.
    """

    status: int
    operations: list[str]
    seconds: float
    log: str

    @property
    def report(self) -> dict[str, Any]:
        """What a command with ``--json`` prints at its end."""
        found: dict[str, Any] = json.loads(self.log[f"\n{self.log}".rindex("\n{\n") :])
        return found


def attempt(
    words: list[str],
    root: Path,
    *,
    kill_after: float | None = None,
    kill_at: int | None = None,
    limits: Mapping[int, int] | None = None,
) -> Attempt:
    """Run a command in a forked process.

    Args:
        words: The command.
        root: What it prints, and the list of its operations, go here.
        kill_after: Kill it after so many seconds.
        kill_at: Kill it before its operation of this number on files in ``root``, from 1.
        limits: Bytes that it may use, by resource; of ``RLIMIT_AS``, beyond what it has from the beginning. Its
            operations are not listed then.
    """
    log, record, began = root / "log.txt", root / "operations.txt", time.monotonic()
    process = os.fork()
    if process == 0:
        _in_fork(lambda: rasterwise(words), log, record, root, kill_at, limits)
    deadline = began + (LONGEST_S if kill_after is None else kill_after)
    ended = False
    while not ended and time.monotonic() < deadline:
        if not (ended := bool(os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT))):
            time.sleep(max(0.0, min(0.002, deadline - time.monotonic())))
    if not ended:
        os.kill(process, signal.SIGKILL)
    status, seconds = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), time.monotonic() - began
    said = log.read_text() if log.exists() else ""
    if not ended and kill_after is None:
        raise RuntimeError(f"{words} took more than {LONGEST_S} s: {said[-2000:]}")
    return Attempt(status, record.read_text().splitlines() if record.exists() else [], seconds, said)


def _in_fork(
    work: Callable[[], int],
    log: Path,
    record: Path,
    root: Path,
    kill_at: int | None,
    limits: Mapping[int, int] | None,
) -> None:
    """Do the work with its output in a file, and end the process with its status, whatever happens."""
    status = 1
    try:
        descriptor, recorded = (
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for path in (log, record)
        )
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        if limits is None:
            watch(root, recorded, kill_at)
        for limited, size in (limits or {}).items():
            has = psutil.Process().memory_info().vms if limited == resource.RLIMIT_AS else 0
            resource.setrlimit(limited, (size + has, size + has))
        status = work()
        sys.stdout.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def watch(root: Path, record: int, kill_at: int | None) -> None:
    """Record this process's operations on files in a folder from now on, and kill it before one of them."""
    count = 0

    def before(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in OPERATIONS and _concerns(event, arguments, f"{root}{os.sep}"):
            count += 1
            os.write(record, f"{event} {' '.join(map(str, arguments))}\n".replace(str(root), ".").encode())
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(before)


def _concerns(event: str, arguments: tuple[Any, ...], start: str) -> bool:
    """Whether an operation changes what is in a folder."""
    if event == "fcntl.lockf":
        return True
    if event == "ctypes.dlsym":
        return bool(arguments[1] == "renameat2")
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return False
    relative = event != "open" and arguments[-1] != -1  # to a folder that shutil.rmtree has opened
    return relative or (not isinstance(arguments[0], int) and os.fsdecode(arguments[0]).startswith(start))
