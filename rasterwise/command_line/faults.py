"""How a command ends that an error has stopped: with one line and a status, or, for a defect of ours, a traceback."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from rasterwise.command_line.statuses import FAILED, INTERRUPTED, USER_ERROR
from rasterwise.errors import READER_DIED, InputError, NonFiniteError, is_out_of_memory

SHARED_MEMORY = Path("/dev/shm")
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE}


@dataclass(frozen=True)
class Ending:
    """How a command ends.

    Attributes:
        line: What the user is told.
        status: The exit status.
    """

    line: str
    status: int


def ending_of(error: BaseException) -> Ending | None:
    """How a command ends that an error has stopped; None for a defect of ours, which keeps its traceback."""
    if isinstance(error, InputError):
        return Ending(str(error), USER_ERROR)
    if isinstance(error, NonFiniteError):
        return Ending(str(error), FAILED)
    if isinstance(error, KeyboardInterrupt):
        return Ending("interrupted", INTERRUPTED)
    said = str(error).splitlines()[-1] if str(error) else type(error).__name__
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        if "shared memory" in str(error):
            return Ending(_of_shared_memory(), USER_ERROR)
        if str(error).startswith("DataLoader worker"):
            return Ending(READER_DIED.format(said.strip()), USER_ERROR)
    if is_out_of_memory(error):
        return Ending(
            f"memory did not suffice ({said}); a smaller --batch-size or fewer --workers take less",
            USER_ERROR,
        )
    return _of_system(error) if isinstance(error, OSError) else None


def _of_shared_memory() -> str:
    """A process that reads data could not hand over a batch, or wrote one beyond the end and got a bus error."""
    size = ""
    if SHARED_MEMORY.is_dir():
        found = os.statvfs(SHARED_MEMORY)
        size = f"; {SHARED_MEMORY} has {found.f_blocks * found.f_frsize / 2**20:.0f} MiB"
    return (
        f"shared memory did not suffice for what is read ahead{size}; give it more (docker run --shm-size=1g), "
        "or fewer --workers: 0 need none"
    )


def _of_system(error: OSError) -> Ending | None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Ending(f"the disk is full ({error}); what was there before is whole", USER_ERROR)
    if error.errno == errno.EFBIG:
        return Ending(
            f"a file would be larger than is allowed here ({error}); raise the limit (ulimit -f), or name another "
            "folder with --output",
            USER_ERROR,
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return Ending(
            f"too many files are open ({error}); raise the limit (ulimit -n), or use fewer --workers",
            USER_ERROR,
        )
    if error.errno in REFUSED:
        return Ending(f"the system refuses it ({error})", USER_ERROR)
    return None
