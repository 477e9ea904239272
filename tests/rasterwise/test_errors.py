"""Want of memory is told from other errors, whoever says it."""

from __future__ import annotations

import errno

import pytest
import torch

from rasterwise.errors import is_out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
    ],
)
def test_want_of_memory(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 cannot be multiplied"), ValueError("out of memory")]
)
def test_other_errors(error: Exception) -> None:
    assert not is_out_of_memory(error)
