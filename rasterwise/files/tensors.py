"""Tensors in safetensors files."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from rasterwise.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors; a full disk raises OSError as any other write does."""
    from safetensors.torch import save_file

    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        raise _system_error(error, path) or error from None


def tensor_names(path: Path) -> list[str]:
    """The names of the tensors in a safetensors file; an InputError if it is absent or damaged."""
    with _refused(path), safe_open(path, "pt") as file:
        return list(file.keys())


def load_tensors(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Read safetensors; an InputError if the file is absent or damaged. Nothing is unpickled.

    Args:
        path: The file.
        prefix: Read those alone whose names begin with it.
    """
    from safetensors.torch import load_file

    with _refused(path):
        if not prefix:
            return load_file(path)
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118


@contextlib.contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Say in one line what is wrong with a safetensors file."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path.parent} holds no {path.name}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}), expected a safetensors file") from None
    except SafetensorError as error:
        raise _system_error(error, path) or InputError(f"{path} is damaged or cut short ({error})") from None


def _system_error(error: SafetensorError, path: Path) -> OSError | None:
    """The system's error that one of safetensors tells of, such as ``... (os error 28)``."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1])), str(path)) if found else None
