"""Memory that a cell may take: too much fails in the cell alone, and is told from other failures."""

from __future__ import annotations

import contextlib

import psutil
import torch

SHARE = 0.9
GIB = 2**30


def limit_memory(gib: float, device: torch.device) -> None:
    """Have this process's allocations fail beyond a limit, before the system kills it or another one.

    Args:
        gib: The limit; 0 for nine tenths of what is free now.
        device: On a GPU nothing is limited: its memory ends by itself, and the host's is not where a model is.
    """
    if device.type == "cuda":
        return
    free = psutil.virtual_memory().available * SHARE
    in_use = getattr(psutil.Process().memory_info(), "data", 0)
    limit = int(gib * GIB if gib else in_use + free)
    with contextlib.suppress(ImportError, OSError, ValueError):  # not every system can
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
