"""Writing files and folders so that they are whole or absent, and reading them with clear errors."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dacite
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rasterwise.errors import InputError


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it takes the name ``folder`` only once the block has ended well.

    A folder already there under that name is replaced at that moment. When the block fails (a full disk,
    say), what it wrote is removed and the old folder stays as it was.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    pending = folder.parent / f".{folder.name}.pending-{os.getpid()}"
    replaced = folder.parent / f".{folder.name}.replaced-{os.getpid()}"
    shutil.rmtree(pending, ignore_errors=True)
    pending.mkdir()
    try:
        yield pending
        for path in pending.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        if folder.exists():
            folder.rename(replaced)
        pending.rename(folder)
    finally:
        shutil.rmtree(pending, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def copied_folder(source: Path, folder: Path) -> None:
    """Copy a folder, so that the copy is whole or absent; one that is there already is left."""
    if not folder.exists():
        with new_folder(folder) as pending:
            shutil.copytree(source, pending, dirs_exist_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON under a temporary name and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pending = path.with_name(f".{path.name}.pending-{os.getpid()}")
    try:
        pending.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        pending.replace(path)
    finally:
        pending.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; InputError where the file is absent or cut short."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path.parent} holds no {path.name}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not whole JSON ({error}); restore it or save the folder again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, expected a JSON object")
    return content


def from_json(data_class: type, content: dict[str, Any], where: object) -> Any:
    """Build a (nested) dataclass from JSON; InputError names the field that does not fit."""
    try:
        return dacite.from_dict(data_class, content, dacite.Config(strict=True, cast=[tuple]))
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
    """Read safetensors; InputError where the file is absent or damaged. Nothing is unpickled."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path.parent} holds no {path.name}") from None
    except SafetensorError as error:
        raise InputError(f"{path} is damaged or cut short ({error})") from None
