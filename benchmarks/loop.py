"""What the training loop costs besides its steps."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rasterwise.data.splits import Batch, Split
from rasterwise.data.workers import BrokenImages
from rasterwise.measure.timing import median, seconds_of
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.config import TrainingConfig
from rasterwise.training.loop import train
from rasterwise.training.objective import Objective, TrainingTask
from rasterwise.training.run.run_folder import RunFolder


@dataclass(frozen=True)
class LoopTimes:
    """Rounds of the training loop, and training steps alone of an equal model between them.

    Attributes:
        loop_seconds: From asking for a batch to asking for the next one.
        bare_seconds: Of training steps alone.
    """

    loop_seconds: list[float]
    bare_seconds: list[float]

    @property
    def overhead(self) -> float:
        """Share of the loop's time that is not in its steps, by medians; noise can make it negative."""
        return 1 - median(self.bare_seconds) / median(self.loop_seconds)

    def figures(self) -> dict[str, Any]:
        """The figures under the names that a benchmark's cell has."""
        return {
            "loop_overhead": self.overhead,
            "loop_step_seconds": self.loop_seconds,
            "bare_step_seconds": self.bare_seconds,
        }


class InterleavedSplit:
    """A split that takes a bare step before each batch that it gives the loop, and times both.

    Interleaved, both are slowed down alike by whatever else the machine does.

    Args:
        split: What the loop trains on.
        bare: A bare step.
        device: Where both are computed.
    """

    def __init__(self, split: Split, bare: Callable[[], object], device: torch.device) -> None:
        self.split, self.bare, self.device = split, bare, device
        self.fingerprint, self.length, self.broken = split.fingerprint, split.length, BrokenImages()
        self.times = LoopTimes([], [])

    def shuffled(self, batch_size: int, **settings: Any) -> Iterator[Batch]:
        """See ``Split``. The last step is not timed: evaluation and saving follow it."""
        batches = self.split.shuffled(batch_size, **settings)
        while True:
            self.times.bare_seconds.append(seconds_of(self.bare, self.device))
            began = time.perf_counter()
            yield next(batches)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.times.loop_seconds.append(time.perf_counter() - began)

    def ordered(self, *arguments: Any, **settings: Any) -> Iterator[Batch]:
        """See ``Split``."""
        return self.split.ordered(*arguments, **settings)


def measure_loop(
    objective: Objective,
    split: Split,
    bare: Callable[[], object],
    config: TrainingConfig,
    *,
    warmup_steps: int,
) -> LoopTimes:
    """Train in a temporary folder, with a bare step of an equal model before every step.

    Args:
        objective: What is trained.
        split: What it is trained on.
        bare: A training step of another model of the same configuration.
        config: How it is trained; its last step is not timed.
        warmup_steps: How many of the first steps are not timed either.
    """
    accelerator = start_accelerator(config)
    interleaved = InterleavedSplit(split, bare, accelerator.device)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        task = TrainingTask(objective, interleaved, evaluate=lambda *_: {})
        train(task, config, RunFolder(Path(folder)), accelerator)
    times = interleaved.times
    return LoopTimes(times.loop_seconds[warmup_steps:], times.bare_seconds[warmup_steps:])
