"""Locks: a folder belongs to the process that writes it, and to none once that process has ended, however it did."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import IO, Self

from rasterwise.errors import InputError
from rasterwise.files.whole import LOCK_NAME

ATTEMPTS = 100


class FolderLock:
    """Keeps other processes out of a folder while this one lives. The system releases it when the process ends."""

    def __init__(self, folder: Path, file: IO[str]) -> None:
        self.folder, self._file = folder, file

    @classmethod
    def take(cls, folder: Path) -> Self:
        """Lock a folder, which is made if it is absent; InputError if another process has it."""
        for _ in range(ATTEMPTS):
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # somebody has removed the folder just now
                lock = cls(folder, (folder / LOCK_NAME).open("a"))
                lock._take()
                if lock._in_place():
                    return lock
                lock._file.close()  # its last holder has removed it meanwhile
        raise InputError(f"{folder} comes and goes, and cannot be locked; name another folder with --output")

    def check(self) -> None:
        """Raise an InputError if the folder was removed, or replaced by another, since it was locked."""
        if not self._in_place():
            raise InputError(
                f"{self.folder} was removed or replaced while it was being written; what was in it is lost"
            )

    def release(self) -> None:
        """Let others have the folder, and leave no lock in it; an empty folder is removed."""
        if self._in_place():
            (self.folder / LOCK_NAME).unlink()
            with contextlib.suppress(OSError):
                self.folder.rmdir()
        self._file.close()

    def _take(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            # lockf locks for the process: forked data workers do not inherit it.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise InputError(
                    f"another process is writing {self.folder}; stop it first, or name another folder with --output"
                ) from None
            # The file system has no locks.

    def _in_place(self) -> bool:
        try:
            there = (self.folder / LOCK_NAME).stat()
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._file.fileno()))
