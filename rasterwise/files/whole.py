"""Files and folders that appear whole or not at all, whenever a process is killed."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

LEFTOVER = re.compile(r"\.(?P<name>.+)\.(pending|replaced)-\d+")
"""The temporary names of files and folders that are being written; they end in the writing process's id."""

LOCK_NAME = ".lock"
"""The file in a folder that the process holds open that writes the folder."""


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill, which is named ``folder`` once the block has succeeded.

    A folder of that name is replaced at that moment. Whenever the process is killed or the power fails, either
    the old or the new one is there, whole. If the block fails, because the disk is full for example, what it wrote
    is removed and the old folder stays as it was.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    pending = hidden(folder, "pending")
    shutil.rmtree(pending, ignore_errors=True)
    pending.mkdir()
    try:
        yield pending
        for path in sorted(pending.rglob("*"), reverse=True):
            _to_disk(path)
        _to_disk(pending)
        _put(pending, folder)
        _to_disk(folder.parent)
    finally:
        shutil.rmtree(pending, ignore_errors=True)
        shutil.rmtree(hidden(folder, "replaced"), ignore_errors=True)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a path to write a file at, which is named ``path`` once the block has succeeded.

    A file of that name is replaced at that moment; it stays as it was if the block fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pending = hidden(path, "pending")
    try:
        yield pending
        _to_disk(pending)
        pending.replace(path)
        _to_disk(path.parent)
    finally:
        pending.unlink(missing_ok=True)


def copied_folder(source: Path, folder: Path) -> None:
    """Copy a folder, so that the copy is whole or absent. A copy that exists already is left as it is."""
    if not folder.exists():
        with new_folder(folder) as pending:
            for path in sorted(source.rglob("*")):  # shutil.copytree wraps a full disk in an error of its own
                copy = pending / path.relative_to(source)
                copy.mkdir() if path.is_dir() else shutil.copyfile(path, copy)


def remove_folder(folder: Path) -> None:
    """Delete a folder; if the process is killed meanwhile, no half of it is left under its name."""
    renamed = hidden(folder, "pending")
    folder.rename(renamed)
    shutil.rmtree(renamed)


def recover(folder: Path) -> None:
    """Restore a folder that a process had renamed, in order to replace it, when it was killed.

    This happens only on file systems that cannot exchange two names.
    """
    if not folder.exists():
        for replaced in folder.parent.glob(f".{glob.escape(folder.name)}.replaced-*"):
            with contextlib.suppress(OSError):  # its writer is alive and has just put the new one there
                replaced.rename(folder)


def clear_leftovers(folder: Path, name: str = "*") -> None:
    """Remove half-written files and folders that killed processes left in a folder in which none is writing now.

    Args:
        folder: Where to look; its subfolders are not searched.
        name: Names of the files and folders that were being written (a pattern).
    """
    for leftover in folder.glob(f".{name}.*-*"):
        found = LEFTOVER.fullmatch(leftover.name)
        if found is None:
            continue
        recover(folder / found["name"])
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def clear_locked(folder: Path) -> None:
    """Remove half-written files and folders everywhere in a folder that this process has locked.

    Folders in it that have locks of their own are left to those who take them.
    """
    for path, subfolders, _ in os.walk(folder):
        clear_leftovers(Path(path))
        subfolders[:] = [
            name
            for name in subfolders
            if not LEFTOVER.fullmatch(name) and not Path(path, name, LOCK_NAME).exists()
        ]


def is_vacant(folder: Path) -> bool:
    """Whether nothing is in a folder, or only what a process leaves that was killed before it wrote anything whole."""
    return all(path.name == LOCK_NAME or LEFTOVER.fullmatch(path.name) for path in folder.iterdir())


def empty_folder(folder: Path, *, first: str, last: str) -> None:
    """Delete all that a locked folder holds, but not the folder, which may be a link or the working directory.

    Args:
        folder: Of which.
        first: A file that goes first, if it is there: without it, the rest counts as unfinished.
        last: A file that goes last: if the process is killed meanwhile, the rest still counts as what it was.
    """
    paths = [path for path in folder.iterdir() if path.name != LOCK_NAME]
    paths.sort(key=lambda path: (path.name == last, path.name != first, path.name))
    removed = hidden(folder / "removed", "pending")
    removed.mkdir()
    for path in paths:
        path.rename(removed / path.name)
    shutil.rmtree(removed)


def hidden(path: Path, state: str) -> Path:
    """Where this process keeps what it is about to put at a path, or what it has moved out of its way."""
    return path.with_name(f".{path.name}.{state}-{os.getpid()}")


def _to_disk(path: Path) -> None:
    """Flush a file's content, or a folder's names, to the disk, so that it survives a power failure."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync folders.
        if not (path.is_dir() and error.errno == errno.EINVAL):
            raise
    finally:
        os.close(descriptor)


def _put(pending: Path, folder: Path) -> None:
    """Rename ``pending`` to ``folder``; a folder of that name is moved out of the way first."""
    if not folder.exists():
        pending.rename(folder)
        return
    if _exchange(pending, folder):
        return
    while True:
        with contextlib.suppress(FileNotFoundError):
            folder.rename(hidden(folder, "replaced"))
        try:
            pending.rename(folder)
            return
        except OSError as error:  # a reader has just put the old one back, with recover
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names atomically, so that both exist at every moment; False where the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # not Linux
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return renameat2(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0
