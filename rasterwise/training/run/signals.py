"""Ending a run when it is asked to, at a point from which it can go on."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator


class Stop:
    """Whether the run was asked to end."""

    def __init__(self) -> None:
        self.signalled = False

    def requested(self, accelerator: Accelerator) -> bool:
        """True on all processes once any of them got a signal."""
        if accelerator.num_processes == 1:
            return self.signalled
        flag = torch.tensor(float(self.signalled), device=accelerator.device)
        return bool(accelerator.reduce(flag, "sum") > 0)


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Note Ctrl-C and SIGTERM instead of dying of them; a second one has its usual effect."""
    stop = Stop()
    before: dict[int, Any] = {}

    def note(number: int, _: FrameType | None) -> None:
        stop.signalled = True
        signal.signal(number, before[number])

    try:
        for expected in (signal.SIGINT, signal.SIGTERM):
            before[expected] = signal.signal(expected, note)
    except ValueError:  # not the main thread: nobody sends signals here
        before.clear()
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
