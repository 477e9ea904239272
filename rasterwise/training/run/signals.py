"""Ending a run when it is asked to, at a point from which it can go on."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator


class StopSignal:
    """Whether the run was asked to end."""

    def __init__(self) -> None:
        self.received = False

    def requested(self, accelerator: Accelerator) -> bool:
        """True on all processes once any of them got a signal; all of them call this."""
        if accelerator.num_processes == 1:
            return self.received
        flag = torch.tensor(float(self.received), device=accelerator.device)
        return bool(accelerator.reduce(flag, "sum") > 0)


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopSignal]:
    """Note Ctrl-C and SIGTERM instead of dying of them; a second one has its usual effect."""
    stop = StopSignal()
    before: dict[int, Any] = {}

    def note(number: int, _: FrameType | None) -> None:
        stop.received = True
        signal.signal(number, before[number])

    try:
        for expected in (signal.SIGINT, signal.SIGTERM):
            before[expected] = signal.signal(expected, note)
    except ValueError:  # only the main thread can handle signals, and nobody sends them elsewhere
        before.clear()
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
