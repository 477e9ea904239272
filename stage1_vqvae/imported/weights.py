"""Weights that others saved: safetensors, or what ``torch.save`` wrote, of which nothing is run."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rasterwise.errors import InputError
from rasterwise.files import load_tensors

PARTS = ("ema", "model", "state_dict", "module")
"""What holds the weights in a checkpoint of a training; averaged ones come first."""
INERT = ("pytorch_lightning.", "lightning.", "omegaconf.", "typing.")
"""Checkpoints of Lightning name classes that the weights do not need: one that does nothing stands for each."""


class _Inert:
    """Takes any arguments, and does nothing with them."""

    def __init__(self, *arguments: Any) -> None:
        pass


def read_weights(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Read the weights of a file.

    Args:
        path: Safetensors, or a file of ``torch.save``.
        prefix: Of safetensors, read those alone whose names begin with it.

    Raises:
        InputError: The file is absent or damaged, or a pickle of more than weights, or holds none.
    """
    return (
        load_tensors(path, prefix) if path.suffix == ".safetensors" else _state_dict(_unpickled(path), path)
    )


def _unpickled(path: Path) -> Any:
    """What ``torch.save`` wrote, by an unpickler that knows tensors and plain values alone."""
    try:
        # An argparse.Namespace, which LlamaGen's checkpoints have, holds values and runs nothing.
        safe: list[Any] = [argparse.Namespace]
        safe += [(type("Inert", (_Inert,), {}), name) for name in _globals(path) if name.startswith(INERT)]
        with torch.serialization.safe_globals(safe):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from None
    except pickle.UnpicklingError as error:
        found = " ".join(str(error).split())
        reason = found.partition("WeightsUnpickler error: ")[2].partition(" Please")[0] or found
        raise InputError(
            f"{path} is a pickle of more than weights, and nothing in it was run ({reason[:120]}); if you trust it, "
            "save its state dict alone"
        ) from None
    except (RuntimeError, EOFError, KeyError, ValueError, AttributeError, IndexError, TypeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path} is damaged, cut short, or no file of torch.save ({reason})") from None


def _globals(path: Path) -> list[str]:
    """The names of classes and functions in the file that its unpickler does not know; none in the oldest format."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return []
    return torch.serialization.get_unsafe_globals_in_checkpoint(path)


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors by name, which may be one part of a training's checkpoint."""
    if isinstance(content, dict):
        for part in PARTS:
            if isinstance(content.get(part), dict):
                return _state_dict(content[part], path)
        tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
        if tensors and all(isinstance(name, str) for name in tensors):
            return tensors
    raise InputError(f"{path} holds no weights, expected tensors by name, or {', '.join(PARTS)} with such")
