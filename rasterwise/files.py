"""Files and folders that appear whole or not at all, and reading them with clear errors."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dacite
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rasterwise.errors import InputError

LEFTOVER = re.compile(r"\.(?P<name>.+)\.(pending|replaced)-\d+")
"""The temporary names of files and folders that are being written; they end in the writing process's id."""


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill, which is named ``folder`` once the block has succeeded.

    A folder of that name is replaced at that moment. Whenever the process is killed or the power fails, either
    the old or the new one is there, whole. If the block fails, because the disk is full for example, what it wrote
    is removed and the old folder stays as it was.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    pending = _hidden(folder, "pending")
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
        shutil.rmtree(_hidden(folder, "replaced"), ignore_errors=True)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a path to write a file at, which is named ``path`` once the block has succeeded.

    A file of that name is replaced at that moment; it stays as it was if the block fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pending = _hidden(path, "pending")
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
            shutil.copytree(source, pending, dirs_exist_ok=True)


def remove_folder(folder: Path) -> None:
    """Delete a folder; if the process is killed meanwhile, no half of it is left under its name."""
    renamed = _hidden(folder, "pending")
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


def _hidden(path: Path, state: str) -> Path:
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
            folder.rename(_hidden(folder, "replaced"))
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


def write_json(path: Path, content: Any) -> None:
    """Write JSON; the file is whole or absent."""
    with new_file(path) as pending:
        pending.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an InputError if the file is absent or cut short."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path.parent} holds no {path.name}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not whole JSON ({error}); restore it or save the folder again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, expected a JSON object")
    return content


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file with one JSON object a line, each with the number of its line, from 1.

    Empty lines are passed over. Raises InputError, naming the line, where one is no JSON object.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist, expected a file of JSON lines")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                content = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise InputError(
                    f"{path}:{number}: is not JSON ({error}); expected one object a line"
                ) from None
            if not isinstance(content, dict):
                raise InputError(f"{path}:{number}: is a {type(content).__name__}, expected a JSON object")
            yield number, content


def from_json(data_class: type, content: dict[str, Any], where: object) -> Any:
    """Build a (nested) dataclass from JSON; an InputError names the field that does not fit."""
    try:
        return dacite.from_dict(data_class, content, dacite.Config(strict=True, cast=[tuple, Path]))
    except InputError:
        raise
    except (dacite.DaciteError, TypeError, ValueError) as error:
        raise InputError(f"{where} does not fit {data_class.__name__}: {error}") from None


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors; a full disk raises OSError as any other write does."""
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        if "No space left" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        raise


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read safetensors; an InputError if the file is absent or damaged. Nothing is unpickled."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path.parent} holds no {path.name}") from None
    except SafetensorError as error:
        raise InputError(f"{path} is damaged or cut short ({error})") from None
