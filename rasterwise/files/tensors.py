"""Tensors in safetensors files."""

from __future__ import annotations

import os
import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rasterwise.errors import InputError


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors; a full disk raises OSError as any other write does."""
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        raise _system_error(error, path) or error from None


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read safetensors; an InputError if the file is absent or damaged. Nothing is unpickled."""
    try:
        return load_file(path)
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
