"""Tensors in files: bit by bit what was saved, or refused by name."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from rasterwise.errors import InputError
from rasterwise.files import load_tensors, save_tensors


def test_tensors(tmp_path: Path) -> None:
    """They come back bit by bit; a file that is absent, cut short or a folder is named."""
    path = tmp_path / "model.safetensors"
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5)}
    save_tensors(tensors, path)
    loaded = load_tensors(path)
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="cut short"):
        load_tensors(path)
    with pytest.raises(InputError, match="holds no"):
        load_tensors(tmp_path / "absent.safetensors")
    with pytest.raises(InputError, match="cannot be read"):
        load_tensors(tmp_path)


def test_errors_of_the_system(tmp_path: Path) -> None:
    """safetensors' own error becomes the system's, with its number: here there is nowhere to write."""
    with pytest.raises(FileNotFoundError) as raised:
        save_tensors({"a": torch.zeros(3)}, tmp_path / "absent" / "model.safetensors")
    assert raised.value.errno == errno.ENOENT
