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
    """The signal that asked the run to end."""

    def __init__(self) -> None:
        self.received = 0

    def requested(self, accelerator: Accelerator) -> int:
        """The number of the signal that any process got, the same on all of them, which all call this; 0 for none."""
        if accelerator.num_processes == 1:
            return self.received
        return int(accelerator.gather(torch.tensor([self.received], device=accelerator.device)).max())


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopSignal]:
    """Note Ctrl-C and SIGTERM instead of dying of them; a second one has its usual effect."""
    stop = StopSignal()
    before: dict[int, Any] = {}

    def note(number: int, _: FrameType | None) -> None:
        stop.received = number
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
