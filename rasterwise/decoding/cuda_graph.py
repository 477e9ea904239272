"""Capturing work on a device once, to replay it: CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes some work without doing it, and gives back what does it, as often as called, on the same tensors."""


class CannotCaptureError(RuntimeError):
    """This machine cannot capture the work; nothing has happened on its device."""


def capture_on(device: torch.device) -> Capture | None:
    """How work on a device is captured, or None where it cannot be."""
    return partial(_capture_cuda_graph, _capture_stream(device)) if device.type == "cuda" else None


@cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures: the matrix products keep a workspace for every stream that they ever ran on."""
    return torch.cuda.Stream(device)


def _capture_cuda_graph(stream: torch.cuda.Stream, work: Callable[[], None]) -> Callable[[], None]:
    graph = torch.cuda.CUDAGraph()
    try:
        # Other threads, which pin memory or log, may go on meanwhile.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            work()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise CannotCaptureError(" ".join(str(error).split())[:300]) from error
    return graph.replay
